"""The table of operations: each one entry with its formula, its value and its derivatives.

To add one, write its entry in the module of its kind; nothing else needs to know.
"""

from __future__ import annotations

from chainrule_engine.operations.axes import AXISWISE
from chainrule_engine.operations.elementwise import ELEMENTWISE
from chainrule_engine.operations.losses import LOSSES
from chainrule_engine.operations.normalization import NORMALIZATION
from chainrule_engine.operations.operation import Axiswise, Elementwise, Misfit, Operation
from chainrule_engine.operations.products import PRODUCTS, Product

__all__ = ["FUNCTIONS", "OPERATIONS", "Axiswise", "Elementwise", "Misfit", "Operation", "Product"]

OPERATIONS: dict[str, Operation] = {
    operation.name: operation for operation in (*ELEMENTWISE, *PRODUCTS, *AXISWISE, *LOSSES, *NORMALIZATION)
}

# How a formula calls them: all but those that only a symbol or the evaluation writes, and a few second names.
FUNCTIONS: dict[str, str] = {
    name: name for name in OPERATIONS if name not in ("add", "subtract", "multiply", "divide", "component", "normalize")
} | {"max": "maximum", "min": "minimum", "dot": "matmul", "ln": "log", "power": "power"}
