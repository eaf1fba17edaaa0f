"""The graph as it is evaluated: no dropout, and running statistics in place of a microbatch's own.

A training graph with `dropout(a, mask)` becomes `a`; `batch_norm(a)` becomes `normalize(a, mean, variance)` with two
leaves that are neither parameters nor inputs, but statistics: their layout is a second flat vector, in float64.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.errors import SettingError
from chainrule_engine.graph import Node, reachable
from chainrule_engine.parameters import Parameter, ParameterLayout


def evaluation_roots(roots: list[Node]) -> tuple[list[Node], ParameterLayout, tuple[Node, ...]]:
    """The roots of the evaluated graphs, the layout of the running statistics, and the nodes they are taken of.

    The layout holds, for each batch_norm in order, its mean and its variance over the rows of its operand."""
    nodes = reachable(roots)
    following = nodes[-1].index + 1
    replaced: dict[Node, Node] = {}
    statistics: list[Parameter] = []
    layers = []
    for node in nodes:
        operands = tuple(replaced[operand] for operand in node.operands)
        if node.operation == "dropout":
            replaced[node] = operands[0]
        elif node.operation == "batch_norm":
            layers.append(node.operands[0])
            leaves = []
            for statistic in ("mean", "variance"):
                name = f"batch_norm {len(layers)} {statistic}"
                statistics.append(Parameter(name, node.shape))
                leaves.append(Node(following, "statistic", (), node.shape, name=name))
                following += 1
            replaced[node] = dataclasses.replace(
                node, index=following, operation="normalize", operands=(operands[0], *leaves)
            )
            following += 1
        elif operands != node.operands:
            replaced[node] = dataclasses.replace(node, index=following, operands=operands)
            following += 1
        else:
            replaced[node] = node
    return [replaced[root] for root in roots], ParameterLayout.of(statistics), tuple(layers)


def initial_statistics(layout: ParameterLayout) -> NDArray[np.float64]:
    """Mean 0 and variance 1 for every batch_norm: what is evaluated before the first step."""
    statistics = np.zeros(layout.size)
    for name, view in layout.views(statistics).items():
        if name.endswith("variance"):
            view[...] = 1.0
    return statistics


def updated_statistics(
    statistics: NDArray[np.float64],
    sums: NDArray[np.float64],
    *,
    layout: ParameterLayout,
    row_count: int,
    momentum: float = 0.9,
) -> NDArray[np.float64]:
    """Return the running statistics after a step: momentum · old + (1 − momentum) · those of the step's batch.

    sums: (layout.size,), for each batch_norm Σ a and Σ a² over the step's rows, as the plans yield them and the
    reduction adds them up. row_count: of the whole step. The batch's variance is that with 1/n.
    Raises SettingError. Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), with exponential averages."""
    if not 0.0 <= momentum < 1.0:
        raise SettingError("momentum", f"{momentum} is not from 0 to below 1")
    if row_count < 1:
        raise SettingError("row_count", f"{row_count} rows have no statistics")
    batch = sums / row_count
    views = list(layout.views(batch).values())
    for mean, variance in zip(views[0::2], views[1::2], strict=True):
        # Rounding may leave a tiny negative number where all rows are equal.
        np.maximum(variance - mean * mean, 0.0, out=variance)
    return momentum * statistics + (1.0 - momentum) * batch
