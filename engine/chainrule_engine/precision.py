"""Vectors in fewer bytes: float32 values as they go over a wire, and what is left of them after it.

A range of a vector that starts at a multiple of the precision's block is encoded as it is within the whole vector: the
bytes of consecutive ranges, one after the other, are the bytes of the whole. All bytes are little-endian, at any
alignment. Work is done in pieces that stay in the cache, with the caller's buffers and one piece of its own.

Values that are not finite stay so, and values beyond a precision's range become infinite or NaN: whoever decodes them
must look. `round` is idempotent: a value that came over the wire goes over it again unchanged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from chainrule_engine.blocks import GRAIN
from chainrule_engine.errors import ValueMismatch
from chainrule_engine.parameters import Vector

Bytes = NDArray[np.uint8]

# Elements worked on at a time: 256 KiB of float32. A multiple of every precision's block.
_PIECE = 65536


class Precision(ABC):
    """One way to write float32 values in bytes.

    name: as in the job file. block: the elements that are encoded together. needs_feedback: so coarse that training
    needs the functions with feedback, whose results depend on what was rounded before."""

    name: str
    block: int
    needs_feedback: bool

    @abstractmethod
    def size_bytes(self, count: int) -> int:
        """The bytes of a vector of `count` elements. Of a multiple of the block: where the next element's begin."""

    def encode(self, values: Vector, out: Bytes) -> None:
        """Write values, (n,), into out, (size_bytes(n),). Raises ValueMismatch where the sizes don't fit."""
        self._check(values, out)
        with np.errstate(over="ignore", invalid="ignore"):
            for elements, encoded in self._pieces(values.size):
                self._encode(values[elements], out[encoded])

    def decode(self, encoded: Bytes, out: Vector) -> None:
        """Write what the bytes, (size_bytes(n),), stand for into out, (n,). Raises ValueMismatch as encode."""
        self._check(out, encoded)
        with np.errstate(over="ignore", invalid="ignore"):
            for elements, piece in self._pieces(out.size):
                self._decode(encoded[piece], out[elements])

    def round(self, values: Vector, out: Vector) -> None:
        """Write into out, (n,), what encoding and decoding leaves of values, (n,); out may be values itself."""
        buffer = self._piece_buffer(values.size)
        with np.errstate(over="ignore", invalid="ignore"):
            for elements, encoded in self._pieces(values.size):
                piece = buffer[: encoded.stop - encoded.start]
                self._encode(values[elements], piece)
                self._decode(piece, out[elements])

    def encode_with_feedback(self, values: Vector, residual: Vector, out: Bytes) -> None:
        """As encode, for values that follow one another: what rounding takes from these is added to the next ones.

        residual: (n,), what was taken so far; it is updated in place, and begins as zeros. Where int8 is decoded, value
        and residual together are exactly the residual before plus the values, as float32 adds them. Source: Karimireddy
        et al. 2019, algorithm 1 (arXiv:1901.09847)."""
        self._check(values, out)
        decoded = np.empty(min(values.size, _PIECE), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for elements, encoded in self._pieces(values.size):
                left = residual[elements]
                left += values[elements]
                self._encode(left, out[encoded])
                self._decode(out[encoded], decoded[: left.size])
                left -= decoded[: left.size]

    def round_with_feedback(self, values: Vector, residual: Vector, out: Vector) -> None:
        """As round, with encode_with_feedback; out may be values itself."""
        buffer = self._piece_buffer(values.size)
        with np.errstate(over="ignore", invalid="ignore"):
            for elements, encoded in self._pieces(values.size):
                piece = buffer[: encoded.stop - encoded.start]
                left = residual[elements]
                left += values[elements]
                self._encode(left, piece)
                self._decode(piece, out[elements])
                left -= out[elements]

    @abstractmethod
    def _encode(self, values: Vector, out: Bytes) -> None:
        """Encode one piece."""

    @abstractmethod
    def _decode(self, encoded: Bytes, out: Vector) -> None:
        """Decode one piece."""

    def _pieces(self, count: int) -> Iterator[tuple[slice, slice]]:
        """Each piece's elements and bytes."""
        for start in range(0, count, _PIECE):
            stop = min(start + _PIECE, count)
            yield slice(start, stop), slice(self.size_bytes(start), self.size_bytes(stop))

    def _piece_buffer(self, count: int) -> Bytes:
        return np.empty(self.size_bytes(min(count, _PIECE)), np.uint8)

    def _check(self, values: Vector, encoded: Bytes) -> None:
        expected = self.size_bytes(values.size)
        if encoded.size != expected:
            raise ValueMismatch(f"{values.size} elements are {expected} bytes in {self.name}, got {encoded.size} bytes")


class _Cast(Precision):
    """Every element on its own, rounded to the nearest value of a narrower type, ties to even."""

    block = 1
    needs_feedback = False

    def __init__(self, name: str, dtype: Any) -> None:
        self.name = name
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._itemsize: int = self._dtype.itemsize

    def size_bytes(self, count: int) -> int:
        return count * self._itemsize

    def _encode(self, values: Vector, out: Bytes) -> None:
        np.copyto(out.view(self._dtype), values, casting="unsafe")

    def _decode(self, encoded: Bytes, out: Vector) -> None:
        np.copyto(out, encoded.view(self._dtype), casting="unsafe")


class _ScaledInt8(Precision):
    """Blocks of 1024 elements, the last one of fewer: each a float32 scale, then an int8 q for every element, whose
    value is q · scale. The scale is max|x| / 127.

    It is cut to 17 significant bits, so q · scale is exact in float32: thus rounding is idempotent, and x - q · scale
    is exact, too. It is never below the smallest normal number. It is NaN where a value of the block is not finite:
    then the whole block decodes to NaN. -0.0 becomes 0.0."""

    name = "int8"
    block = GRAIN
    needs_feedback = True

    _LARGEST_Q = np.float32(127)
    _SMALLEST_SCALE = np.finfo(np.float32).smallest_normal
    _SCALE_MASK = np.uint32(0xFFFFFF80)
    _SCALE_BYTES = 4

    def size_bytes(self, count: int) -> int:
        return count + -(-count // self.block) * self._SCALE_BYTES

    def _encode(self, values: Vector, out: Bytes) -> None:
        for rows, scales, quotients in self._blocks(values, out):
            scaled = np.absolute(rows)
            scale = np.maximum.reduce(scaled, axis=1, keepdims=True)
            finite = np.isfinite(scale)
            scale /= self._LARGEST_Q
            np.maximum(scale, self._SMALLEST_SCALE, out=scale)
            np.bitwise_and(scale.view(np.uint32), self._SCALE_MASK, out=scale.view(np.uint32))
            np.multiply(rows, np.reciprocal(scale), out=scaled)
            np.rint(scaled, out=scaled)
            # What a NaN becomes as an integer depends on the machine; it must not show in the bytes.
            if not finite.all():
                np.copyto(scale, np.float32(np.nan), where=~finite)
                np.copyto(scaled, np.float32(0), where=~finite)
            np.copyto(scales, scale)
            np.copyto(quotients, scaled, casting="unsafe")

    def _decode(self, encoded: Bytes, out: Vector) -> None:
        for rows, scales, quotients in self._blocks(out, encoded):
            np.multiply(quotients, scales, out=rows)

    def _blocks(
        self, values: Vector, encoded: Bytes
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int8]]]:
        """The whole blocks as rows, then what is left as one row: values, (k, w); scales, (k, 1); q, (k, w)."""
        whole = values.size // self.block * self.block
        for start, stop, width in ((0, whole, self.block), (whole, values.size, values.size - whole)):
            if start < stop:
                rows = values[start:stop].reshape(-1, width)
                row_bytes = encoded[self.size_bytes(start) : self.size_bytes(stop)].reshape(len(rows), -1)
                yield (
                    rows,
                    row_bytes[:, : self._SCALE_BYTES].view("<f4"),
                    row_bytes[:, self._SCALE_BYTES :].view(np.int8),
                )


FLOAT32: Precision = _Cast("float32", np.float32)
BFLOAT16: Precision = _Cast("bfloat16", ml_dtypes.bfloat16)
FLOAT16: Precision = _Cast("float16", np.float16)
INT8: Precision = _ScaledInt8()

# Writes what rounding leaves of the first vector into the second, which may be the first.
Rounding = Callable[[Vector, Vector], None]


def tree_rounding(precision: Precision) -> Rounding | None:
    """How every sum along the reduction tree is rounded; None: not at all.

    Each node is rounded, whoever computes it, so the bits don't depend on which of them go over a wire. With feedback
    that can't be: what is rounded then depends on who pushes."""
    return None if precision is FLOAT32 or precision.needs_feedback else precision.round


PRECISIONS = {precision.name: precision for precision in (FLOAT32, BFLOAT16, FLOAT16, INT8)}
