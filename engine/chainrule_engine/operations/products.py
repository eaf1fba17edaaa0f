"""`@`: dot, matrix–vector, vector–matrix and matrix–matrix product, by the shapes of one example.

With an index letter for each axis a product is a sum over the letter that both operands share, and so is each of its
derivatives; the letter `r` of the rows is summed wherever the result has none, which is just what an operand without
rows needs.
"""

# ruff: noqa: ARG002  (all rules of a kind take the same arguments)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chainrule_engine.graph import Node
from chainrule_engine.operations.operation import Array, Misfit, Operation, Shape

# For readers, by the number of axes of a and of b: for each of them ∂f/∂operand, and what g contributes.
_FORMULAS = {
    (1, 1): (("b", "g b"), ("a", "g a")),
    (2, 1): (("∂fᵢ/∂aᵢⱼ = bⱼ", "g bᵀ"), ("a", "aᵀ g")),
    (1, 2): (("bᵀ", "b g"), ("∂fₖ/∂bⱼₖ = aⱼ", "a gᵀ")),
    (2, 2): (("∂fᵢₖ/∂aᵢⱼ = bⱼₖ", "g bᵀ"), ("∂fᵢₖ/∂bⱼₖ = aᵢⱼ", "aᵀ g")),
}


@dataclass(frozen=True)
class Product(Operation):
    """f = a @ b        ∂loss/∂a = g bᵀ        ∂loss/∂b = aᵀ g"""

    def shape(self, *operands: Node, options: tuple[float, ...]) -> Shape:
        a, b = operands
        if not a.shape or not b.shape:
            raise Misfit("'@' takes vectors and matrices; '*' multiplies by a scalar")
        if len(a.shape) > 2 or len(b.shape) > 2:
            raise Misfit("'@' takes vectors and matrices, no more than two axes")
        if a.shape[-1] != b.shape[0]:
            left = f"{a.shape[-1]} columns" if len(a.shape) == 2 else f"{a.shape[-1]} elements"
            right = f"{b.shape[0]} rows" if len(b.shape) == 2 else f"{b.shape[0]} elements"
            fitting = (*a.shape[:-1], b.shape[0])
            raise Misfit(f"{left} cannot meet {right}; a left side of shape {fitting} would fit")
        return a.shape[:-1] + b.shape[1:]

    def forward(self, node: Node, *values: Array) -> Array:
        a, b, f = letters_of(node)
        return np.asarray(np.einsum(f"{a},{b}->{f}", *values, optimize=True))

    def pullback(self, node: Node, index: int, g: Array, f: Array, *values: Array) -> Array:
        letters = letters_of(node)
        other = 1 - index
        subscripts = f"{letters[2]},{letters[other]}->{letters[index]}"
        return np.asarray(np.einsum(subscripts, g, values[other], optimize=True))

    def partial_formula(self, node: Node, index: int) -> str:
        a, b = node.operands
        return _FORMULAS[len(a.shape), len(b.shape)][index][0]

    def pullback_formula(self, node: Node, index: int) -> str:
        a, b = node.operands
        return _FORMULAS[len(a.shape), len(b.shape)][index][1]


def letters_of(node: Node) -> tuple[str, str, str]:
    """The axes of a, b and f: r the rows, i the rows of a, j what is summed over, k the columns of b."""
    a, b = node.operands
    i = "i" if len(a.shape) == 2 else ""
    k = "k" if len(b.shape) == 2 else ""
    rows = ["r" if operand.batched else "" for operand in (a, b, node)]
    return rows[0] + i + "j", rows[1] + "j" + k, rows[2] + i + k


PRODUCTS = (Product("matmul", "a b", 2, symbol="@"),)
