"""The parameters as workers see them: after their way over the wire, in whatever precision that is.

In float32 they are the parameters themselves. In bfloat16 and float16 each is rounded anew for every step. In int8 only
the change since the last step is rounded, and what rounding takes from it is part of the next change: so the error
doesn't grow. What a worker computes with is the same whether vectors travel or lie in shared memory.
"""

from __future__ import annotations

import numpy as np

from chainrule_engine.parameters import Vector
from chainrule_engine.precision import FLOAT32, Bytes, Precision


class PublishedParameters:
    """The vector that workers hold, and the one that is prepared for the next step. `current` is (n,) float32.

    memory: two vectors to keep them in, or None for new ones; in float32 none are needed."""

    def __init__(
        self, precision: Precision, parameters: Vector, *, memory: tuple[Vector, Vector] | None = None
    ) -> None:
        self.precision = precision
        self.current = parameters
        self._is_exact = True
        # By the start of a range: what a worker needs to come from the vector before to this one.
        self._changes: dict[int, Bytes] = {}
        self._next_changes: dict[int, Bytes] = {}
        if precision is not FLOAT32:
            self.current, self._next = memory or (np.empty_like(parameters), np.empty_like(parameters))
            self.publish_exactly(parameters)

    def publish_exactly(self, parameters: Vector) -> None:
        """Let workers have these parameters without rounding: at the start, and for the last evaluation."""
        if self.precision is FLOAT32:
            self.current = parameters
        else:
            np.copyto(self.current, parameters)
        self._is_exact = True
        self._changes, self._next_changes = {}, {}

    def restore(self, current: Vector) -> None:
        """Go on with what workers held when a checkpoint was taken; not for float32, where that is the parameters."""
        np.copyto(self.current, current)
        self._is_exact = False

    def prepare(self, parameters: Vector, start: int, stop: int) -> None:
        """Round the range start … stop - 1 of the next parameters. `current` stays as it is."""
        if self.precision is FLOAT32:
            return
        following = self._next[start:stop]
        change = np.empty(self.precision.size_bytes(stop - start), dtype=np.uint8)
        if self.precision.needs_feedback:
            np.subtract(parameters[start:stop], self.current[start:stop], out=following)
            self.precision.encode(following, change)
            self.precision.decode(change, following)
            following += self.current[start:stop]
        else:
            self.precision.encode(parameters[start:stop], change)
            self.precision.decode(change, following)
        self._next_changes[start] = change

    def commit(self, parameters: Vector) -> None:
        """The next parameters are the current ones now. Every range of them has been prepared."""
        if self.precision is FLOAT32:
            self.current = parameters
            return
        self.current, self._next = self._next, self.current
        self._changes, self._next_changes = self._next_changes, {}
        self._is_exact = False

    def next_values(self, parameters: Vector, start: int, stop: int) -> memoryview:
        """The bytes of a range that was prepared but not yet committed. parameters: the next ones."""
        if self.precision is FLOAT32:
            return _bytes_of(parameters[start:stop])
        return self._next_changes[start].data

    def values(self, start: int, stop: int, *, whole: bool) -> memoryview:
        """The bytes of a range of `current`.

        whole: for a worker that doesn't hold the vector before; they then need more bytes where only changes travel."""
        change = None if whole else self._changes.get(start)
        if change is not None:
            return change.data
        if self.precision is FLOAT32 or self._is_exact or self.precision.needs_feedback:
            return _bytes_of(self.current[start:stop])
        encoded = np.empty(self.precision.size_bytes(stop - start), dtype=np.uint8)
        self.precision.encode(self.current[start:stop], encoded)
        return encoded.data


def read_values(precision: Precision, values: bytes | memoryview, out: Vector) -> None:
    """On a worker: bring a range of the published parameters, `out`, up to date from the bytes that `values` gave.

    Raises ValueError where they don't fit."""
    if len(values) == 4 * out.size:
        out[...] = np.frombuffer(values, dtype="<f4")
    elif len(values) != precision.size_bytes(out.size):
        raise ValueError(f"{len(values)} bytes for {out.size} elements in {precision.name}")
    elif precision.needs_feedback:
        change = np.empty_like(out)
        precision.decode(np.frombuffer(values, dtype=np.uint8), change)
        out += change
    else:
        precision.decode(np.frombuffer(values, dtype=np.uint8), out)


def _bytes_of(vector: Vector) -> memoryview:
    return vector.astype("<f4", copy=False).data.cast("B")
