"""All parameters of a model in one flat float32 vector, with a named view for each.

Wire, reduction, update, checkpoint and clipping work on the vector; formulas see the views. The order is the order of
declaration and never changes, because the SHA-256 of the vector depends on it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.errors import ValueMismatch

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Parameter:
    """One named tensor of a model. `initializer` None means: chosen from the activation that follows it.

    frozen: it keeps its first values."""

    name: str
    shape: tuple[int, ...]
    initializer: str | None = None
    frozen: bool = False

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ParameterLayout:
    """Where each parameter lies in the flat vector."""

    parameters: tuple[Parameter, ...]
    offsets: tuple[int, ...] = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        offsets = []
        offset = 0
        for parameter in self.parameters:
            offsets.append(offset)
            offset += parameter.size
        object.__setattr__(self, "offsets", tuple(offsets))
        object.__setattr__(self, "size", offset)

    @classmethod
    def of(cls, parameters: Iterable[Parameter]) -> ParameterLayout:
        """The layout of parameters in their given order."""
        return cls(tuple(parameters))

    @property
    def frozen_ranges(self) -> tuple[tuple[int, int], ...]:
        """The elements (start, stop) of the vector that keep their first values, from left to right."""
        return tuple(
            (offset, offset + parameter.size)
            for parameter, offset in zip(self.parameters, self.offsets, strict=True)
            if parameter.frozen
        )

    def views(self, vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Each parameter as a view into `vector`: nothing is copied.

        vector: (size,), any float type. Raises ValueMismatch for another length."""
        if vector.shape != (self.size,):
            raise ValueMismatch(f"the model has {self.size} parameter elements, but the vector has {vector.shape}")
        return {
            parameter.name: vector[offset : offset + parameter.size].reshape(parameter.shape)
            for parameter, offset in zip(self.parameters, self.offsets, strict=True)
        }


def sha256_of(vector: NDArray[Any], *more: NDArray[Any]) -> str:
    """The SHA-256, in hexadecimal, of the little-endian bytes of a vector (and of others after it)."""
    digest = hashlib.sha256()
    for array in (vector, *more):
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).view(np.uint8).data)
    return digest.hexdigest()
