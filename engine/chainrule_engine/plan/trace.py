"""Records the arithmetic of operations as a flat list of instructions.

A `Traced` stands for an array that will be there when the plan runs. Operators, ufuncs, `sum`, `max`, `reshape` and
indices on it are recorded, not computed: so the functions that define an operation for the interpreter also define
it for the plan. An array that only repeats itself along an axis is kept with length 1 there (`kept`), so that nothing
is computed twice; `shape` is what it stands for.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

Shape = tuple[int, ...]

# Beyond this a sum by `dot` with ones, one running float32 sum for each lane, would lose to numpy's pairwise sum.
LONGEST_DOT_SUM = 2048


@dataclass(eq=False)
class Buffer:
    """Memory that instructions write to or read from.

    kind: 'temporary' lives in the plan's arena, only as long as it is needed; 'parameter', 'gradient' and 'statistic'
    are parts of flat vectors, `start` their place; 'input' is an argument; 'kept' belongs to the plan (masks, losses);
    'constant' holds `value`."""

    kind: str
    shape: Shape
    name: str = ""
    start: int = 0
    value: Any = None
    dtype: str = "float32"

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass
class Instruction:
    """One call. operation: a ufunc's name, or how `chainrule_engine.plan.numpy_program` writes it. elementwise: may be
    done in place."""

    operation: str
    operands: list[Traced]
    out: Traced
    elementwise: bool = False
    detail: tuple[Any, ...] = ()


class Traced(NDArrayOperatorsMixin):
    """An array to come: a view of a buffer, or a constant number."""

    def __init__(
        self,
        trace: Trace,
        buffer: Buffer | None,
        shape: Shape,
        *,
        kept: Shape | None = None,
        view: str = "",
        number: float = 0.0,
        contiguous: bool = True,
        whole: bool = True,
    ) -> None:
        # Weakly: a trace holds what it has recorded, which would hold it.
        self._trace = weakref.ref(trace)
        self.buffer = buffer
        self.shape = shape
        self.kept = shape if kept is None else kept
        self.view = view
        self.number = number
        self.contiguous = contiguous
        self.whole = whole
        self.negated = False  # whether it stands for the negative of the memory: see `chainrule_engine.plan.negations`

    @property
    def trace(self) -> Trace:
        """Where it is recorded; whoever records holds that."""
        trace = self._trace()
        if trace is None:
            raise ReferenceError("nothing can be recorded any longer: the trace has ended")
        return trace

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for arrays that are sure to hold the same."""
        if self.buffer is None:
            return ("number", self.number)
        return (id(self.buffer), self.view, self.kept)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            return NotImplemented
        return self.trace.ufunc(ufunc, [self.trace.traced(value) for value in inputs])

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        if function is np.concatenate:
            return self.trace.concatenate([self.trace.traced(value) for value in arguments[0]])
        if function is np.zeros_like:
            return self.trace.filled(self.shape, 0.0)
        return NotImplemented

    def sum(self, axis: int | tuple[int, ...], keepdims: bool = False) -> Traced:
        return self.trace.total(self, _normal(axis, self.ndim), keepdims)

    def max(self, axis: int | tuple[int, ...], keepdims: bool = False) -> Traced:
        return self.trace.largest(self, _normal(axis, self.ndim), keepdims)

    def reshape(self, *shape: Any) -> Traced:
        new: Shape = tuple(shape[0]) if isinstance(shape[0], tuple) else tuple(shape)
        if new == self.shape:
            return self
        added = len(new) - self.ndim
        if added > 0 and new == self.shape + (1,) * added:
            if self.buffer is None:
                return self.broadcast_to(new)
            axes = "[..., " + ", ".join(["None"] * added) + "]"
            return self._viewed(axes, new, self.kept + (1,) * added, contiguous=self.contiguous)
        full = self.trace.full(self)
        return full._viewed(f".reshape({_text(new)})", new, new, contiguous=True)

    def transposed(self) -> Traced:
        """With the axes in reverse order; only for products, which take any strides."""
        if self.ndim < 2:
            return self
        return self._viewed(".T", self.shape[::-1], self.kept[::-1], contiguous=False)

    def __getitem__(self, index: Any) -> Traced:
        full = self.trace.full(self)
        probe = np.broadcast_to(np.empty(()), full.shape)[index]
        text = f"[{_index_text(index)}]"
        return full._viewed(text, probe.shape, probe.shape, contiguous=False, whole=False)

    def __setitem__(self, index: Any, value: Traced) -> None:
        self.trace.write(self[index], value)

    def part(self, start: int, shape: Shape) -> Traced:
        """Of a vector, the elements from `start` on that make an array of `shape`."""
        view = f"[{start}:{start + math.prod(shape)}].reshape({_text(shape)})"
        return self._viewed(view, shape, shape, contiguous=True, whole=False)

    def broadcast_to(self, shape: Shape) -> Traced:
        """The same array, standing for a larger one along axes of length 1 or in front; nothing is computed."""
        if shape == self.shape:
            return self
        if self.buffer is None:
            return Traced(self.trace, None, shape, kept=(), number=self.number)
        kept, view = self.kept, self.view
        if len(kept) < len(shape):
            kept = (1,) * (len(shape) - len(kept)) + kept
            view += "[" + ", ".join(["None"] * (len(shape) - self.ndim)) + ", ...]"
        return Traced(
            self.trace, self.buffer, shape, kept=kept, view=view, contiguous=self.contiguous, whole=self.whole
        )

    def _viewed(self, view: str, shape: Shape, kept: Shape, *, contiguous: bool, whole: bool = True) -> Traced:
        return Traced(
            self.trace,
            self.buffer,
            shape,
            kept=kept,
            view=self.view + view,
            contiguous=contiguous,
            whole=whole and self.whole,
        )


@dataclass
class Trace:
    """The instructions so far, and what is known to be computed already.

    by_row: each row has calls of BLAS of its own. Within one call for all rows a kernel may add up a row's products in
    another order than those of its neighbours, so that a row's bits depend on its place."""

    instructions: list[Instruction] = field(default_factory=list)
    by_row: bool = False
    _known: dict[tuple[Any, ...], Traced] = field(default_factory=dict)
    _constants: dict[tuple[Any, ...], Traced] = field(default_factory=dict)

    def forget(self) -> None:
        """Start a phase: what is known already is computed again rather than kept in memory from one to the other."""
        self._known.clear()

    def number(self, value: float, shape: Shape = ()) -> Traced:
        return Traced(self, None, shape, kept=(), number=float(value))

    def array(self, value: np.ndarray[Any, Any]) -> Traced:
        """A constant array."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            buffer = Buffer("constant", value.shape, value=value, dtype=value.dtype.name)
            self._constants[key] = Traced(self, buffer, value.shape)
        return self._constants[key]

    def traced(self, value: Any) -> Traced:
        if isinstance(value, Traced):
            return value
        return self.number(float(value)) if np.ndim(value) == 0 else self.array(np.asarray(value))

    def temporary(self, shape: Shape) -> Traced:
        return Traced(self, Buffer("temporary", shape), shape)

    def add(
        self,
        operation: str,
        operands: Sequence[Traced],
        kept: Shape,
        *,
        elementwise: bool = False,
        detail: Any = (),
        dtype: str = "float32",
    ) -> Traced:
        """Record a call that gives a new array of shape `kept`."""
        key = (operation, tuple(operand.key for operand in operands), kept, detail)
        if key not in self._known:
            out = Traced(self, Buffer("temporary", kept, dtype=dtype), kept)
            self.instructions.append(Instruction(operation, list(operands), out, elementwise, detail))
            self._known[key] = out
        return self._known[key]

    def write(self, out: Traced, value: Traced) -> None:
        """Record a copy into (a part of) an array that is there."""
        self.instructions.append(Instruction("copy", [value], out))

    def ufunc(self, ufunc: np.ufunc, operands: list[Traced]) -> Traced:
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        if all(operand.buffer is None for operand in operands):
            # Infinity and NaN are values like others.
            with np.errstate(all="ignore"):
                return self.number(float(ufunc(*(np.float32(operand.number) for operand in operands))), shape)
        if ufunc is np.multiply:
            for one, other in (operands, operands[::-1]):
                if one.buffer is None and one.number == 1.0:
                    return other.broadcast_to(shape)
                if one.buffer is None and one.number == -1.0:
                    return self.ufunc(np.negative, [other.broadcast_to(shape)])
        kept = np.broadcast_shapes(*(operand.kept for operand in operands))
        if ufunc is np.heaviside and operands[1].buffer is None and operands[1].number == 0.0:
            # numpy's heaviside takes 10 times as long on large arrays.
            positive = self.add("greater", operands, kept, elementwise=True, dtype="bool")
            return self.add("copy", [positive], kept).broadcast_to(shape)
        return self.add(ufunc.__name__, operands, kept, elementwise=True).broadcast_to(shape)

    def full(self, value: Traced) -> Traced:
        """The array itself where nothing is left out and elements follow each other in memory, else a copy."""
        if value.buffer is not None and value.kept == value.shape and value.contiguous:
            return value
        return self.add("copy", [value], value.shape)

    def filled(self, shape: Shape, number: float) -> Traced:
        out = self.temporary(shape)
        self.write(out, self.number(number))
        return out

    def concatenate(self, parts: list[Traced]) -> Traced:
        """Joined along the last axis."""
        shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
        out, start = self.temporary(shape), 0
        for part in parts:
            self.write(out[..., start : start + part.shape[-1]], part)
            start += part.shape[-1]
        return out

    def total(self, value: Traced, axes: tuple[int, ...], keepdims: bool) -> Traced:
        """The sum along some axes; an axis that only repeats is a factor."""
        result = _reduced(value.shape, axes, keepdims)
        if value.buffer is None:
            return self.number(value.number * math.prod(value.shape[axis] for axis in axes), result)
        factor = math.prod(value.shape[axis] for axis in axes if value.kept[axis] == 1)
        kept = _reduced(value.kept, axes, keepdims)
        count = math.prod(value.kept[axis] for axis in axes)
        if count > 1:
            value = self._added_up(value, axes, count, kept)
        elif kept != value.kept:
            value = value if value.contiguous else self.add("copy", [value], value.kept)
            value = value._viewed(f".reshape({_text(kept)})", kept, kept, contiguous=True)
        value = Traced(
            self, value.buffer, result, kept=kept, view=value.view, contiguous=value.contiguous, whole=value.whole
        )
        return value if factor == 1 else value * float(factor)

    def _added_up(self, value: Traced, axes: tuple[int, ...], count: int, kept: Shape) -> Traced:
        rest = math.prod(value.kept) // count
        last = axes == tuple(range(len(value.kept) - len(axes), len(value.kept)))
        first = axes == tuple(range(len(axes)))
        if count <= LONGEST_DOT_SUM and value.contiguous and (last or first):
            ones = self.array(np.ones(count, np.float32))
            flat: Shape = (count,) if rest == 1 else (rest, count) if last else (count, rest)
            matrix = value._viewed(f".reshape({_text(flat)})", flat, flat, contiguous=True)
            if self.by_row and last and rest > 1:
                total = self.add("vecdot", [matrix, ones], (rest,))
                return total._viewed(f".reshape({_text(kept)})", kept, kept, contiguous=True)
            order = [matrix, ones] if last else [ones, matrix]
            total = self.add("dot", order, () if rest == 1 else (rest,))
            return (
                total if total.kept == kept else total._viewed(f".reshape({_text(kept)})", kept, kept, contiguous=True)
            )
        return self.add("add_reduce", [value], kept, detail=(axes, len(kept) == len(value.kept)))

    def largest(self, value: Traced, axes: tuple[int, ...], keepdims: bool) -> Traced:
        value = self.full(value)
        kept = _reduced(value.kept, axes, keepdims)
        return self.add("maximum_reduce", [value], kept, detail=(axes, keepdims))


def _normal(axis: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    axes = (axis,) if isinstance(axis, int) else axis
    return tuple(sorted(a % rank for a in axes))


def _reduced(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    if keepdims:
        return tuple(1 if axis in axes else length for axis, length in enumerate(shape))
    return tuple(length for axis, length in enumerate(shape) if axis not in axes)


def _text(shape: Shape) -> str:
    return ", ".join(str(length) for length in shape) if shape else "()"


def _index_text(index: Any) -> str:
    """A numpy index of integers, slices and '...' as source text."""
    parts = index if isinstance(index, tuple) else (index,)
    texts = []
    for part in parts:
        if part is Ellipsis:
            texts.append("...")
        elif isinstance(part, slice):
            texts.append(
                f"{'' if part.start is None else int(part.start)}:{'' if part.stop is None else int(part.stop)}"
            )
        else:
            texts.append(str(int(part)))
    return ", ".join(texts)
