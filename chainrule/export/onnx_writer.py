"""Collects the nodes and constants of an ONNX graph, each under a name of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Writer:
    """Call it with an operation, operands and attributes: the name of the result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._known: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._calls: dict[tuple[Any, ...], str] = {}

    def __call__(self, operation: str, *operands: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one result, or find the one that does the same."""
        from onnx import helper

        key = (domain, operation, operands, repr(sorted(attributes.items())))
        if key not in self._calls:
            name = f"v{len(self.nodes)}"
            self.nodes.append(helper.make_node(operation, list(operands), [name], domain=domain, **attributes))
            self._calls[key] = name
        return self._calls[key]

    def array(self, value: NDArray[Any], name: str = "") -> str:
        """A constant array. name: for readers; else it gets one."""
        from onnx import numpy_helper

        # Objects are texts, of which the bytes are no content.
        content = repr(value.tolist()).encode() if value.dtype.kind == "O" else value.tobytes()
        key = (value.dtype.str, content, value.shape)
        if key not in self._known or name:
            self._known[key] = name or f"c{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(value, self._known[key]))
        return self._known[key]

    def number(self, value: float) -> str:
        """A float32 number."""
        return self.array(np.array(value, np.float32))

    def wide(self, value: float) -> str:
        """A float64 number."""
        return self.array(np.array(value, np.float64))

    def integer(self, value: int) -> str:
        """An int64 number."""
        return self.array(np.array(value, np.int64))

    def integers(self, values: list[int]) -> str:
        """A vector of int64."""
        return self.array(np.array(values, np.int64))

    def texts(self, values: tuple[str, ...]) -> str:
        """A vector of texts."""
        return self.array(np.array(values, dtype=object))
