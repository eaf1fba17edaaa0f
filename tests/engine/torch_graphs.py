"""The same graph in PyTorch, written without a look at our rules: the independent referee of values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from chainrule_engine.graph import Graph, Node

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "power": torch.pow,
    "negative": torch.neg,
    "square": torch.square,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "softplus": F.softplus,
    "silu": F.silu,
    "gelu": lambda a: F.gelu(a, approximate="tanh"),
    "sin": torch.sin,
    "cos": torch.cos,
    "squared": lambda a, b: F.mse_loss(*torch.broadcast_tensors(a, b), reduction="none"),
    "absolute": lambda a, b: F.l1_loss(*torch.broadcast_tensors(a, b), reduction="none"),
    "huber": lambda a, b, d: F.huber_loss(*torch.broadcast_tensors(a, b), reduction="none", delta=d),
    "hinge": lambda a, b: torch.clamp(1 - a * b, min=0),
    "logistic": lambda a, b: F.softplus(-a * b),
    "dropout": lambda a, b, _: a * b,
}

PER_EXAMPLE: dict[str, Callable[..., Any]] = {
    "matmul": torch.matmul,
    "sum": torch.sum,
    "mean": torch.mean,
    "norm": torch.linalg.vector_norm,
    "softmax": lambda a: F.softmax(a, dim=-1),
    "log_softmax": lambda a: F.log_softmax(a, dim=-1),
    "logsumexp": lambda a: torch.logsumexp(a, dim=-1),
    "component": lambda a, *index: a[tuple(index)],
    "concatenate": lambda *parts: torch.cat([part.reshape(-1) for part in parts]),
    "cross_entropy": F.cross_entropy,
    "layer_norm": lambda a, epsilon: F.layer_norm(a, a.shape, eps=epsilon),
}


def total_and_gradients(
    graph: Graph, values: dict[str, Any], row_count: int
) -> tuple[float, dict[str, Any], tuple[str, ...]]:
    """Σ over rows of the root, and ∂/∂ each float leaf, in float64. One example at a time wherever that is possible."""
    leaves = {}
    for name, value in values.items():
        leaf = torch.tensor(value)
        leaves[name] = leaf if value.dtype.kind in "iu" else leaf.double().requires_grad_()
    rows: dict[Node, list[Any]] = {}
    for node in graph.nodes:
        rows[node] = _rows(node, rows, leaves, row_count)
    total = sum(rows[graph.root])
    used = [node.name for node in graph.nodes if node.is_leaf and node.name and node.class_count is None]
    gradients = torch.autograd.grad(total, [leaves[name] for name in used], allow_unused=True)
    by_name = {
        name: torch.zeros_like(leaves[name]) if gradient is None else gradient
        for name, gradient in zip(used, gradients, strict=True)
    }
    return float(total.detach()), {name: gradient.numpy() for name, gradient in by_name.items()}, tuple(used)


def _rows(node: Node, rows: dict[Node, list[Any]], leaves: dict[str, Any], row_count: int) -> list[Any]:
    if node.operation == "constant":
        return [torch.tensor(node.value, dtype=torch.float64)] * row_count
    if node.is_leaf:
        return [leaves[node.name][row] if node.batched else leaves[node.name] for row in range(row_count)]
    operands = [rows[operand] for operand in node.operands]
    if node.operation == "batch_norm":
        together = torch.stack(operands[0])
        normalized = (together - together.mean(0)) / torch.sqrt(together.var(0, correction=0) + node.options[0])
        return list(normalized)
    function = ELEMENTWISE.get(node.operation) or PER_EXAMPLE[node.operation]
    return [function(*(operand[row] for operand in operands), *node.options) for row in range(row_count)]
