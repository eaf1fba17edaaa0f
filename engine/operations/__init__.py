"""The table of operations: each one entry with its formula, its value and its derivatives.

To add one, write its entry in the module of its kind; nothing else needs to know.
"""

from __future__ import annotations

from engine.operations.axes import AXISWISE
from engine.operations.elementwise import ELEMENTWISE
from engine.operations.kinds import Axiswise, Elementwise, Misfit, Operation
from engine.operations.losses import LOSSES
from engine.operations.normalization import NORMALIZATION
from engine.operations.products import PRODUCTS, Product

__all__ = ["FUNCTIONS", "OPERATIONS", "Axiswise", "Elementwise", "Misfit", "Operation", "Product"]

OPERATIONS: dict[str, Operation] = {
    operation.name: operation for operation in (*ELEMENTWISE, *PRODUCTS, *AXISWISE, *LOSSES, *NORMALIZATION)
}

# How a formula calls them: all but those that only a symbol or the evaluation writes, and a few second names.
FUNCTIONS: dict[str, str] = {
    name: name for name in OPERATIONS if name not in ("add", "subtract", "multiply", "divide", "component", "normalize")
} | {"max": "maximum", "min": "minimum", "dot": "matmul", "ln": "log", "power": "power"}
