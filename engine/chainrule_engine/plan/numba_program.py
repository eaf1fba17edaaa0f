"""The instructions of a small plan as one compiled function, by numba: for networks so small that calls are the cost.

A NumPy call costs 0.15 µs whatever its size; a small network's step is thirty of them. Here each instruction is a loop
over the same arena, and neighbours of equal size share a loop. Large arrays are left to numpy, whose exp and BLAS are
faster than plain loops: `pays` decides, from the instructions alone, so that every worker decides alike. The bits are
not those of the numpy backend; they are the same wherever the same processor runs the same numba.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from chainrule_engine.plan.memory import Arena, arena_of
from chainrule_engine.plan.numpy_program import Program, aligned_zeros
from chainrule_engine.plan.trace import Buffer, Instruction, Traced

# Each operation on numbers, and about how many ns an element takes in a loop.
NUMBERS: dict[str, tuple[str, float]] = {
    "add": ("{0} + {1}", 0.1),
    "subtract": ("{0} - {1}", 0.1),
    "multiply": ("{0} * {1}", 0.1),
    "divide": ("{0} / {1}", 0.3),
    "negative": ("-{0}", 0.1),
    "copy": ("float32({0})", 0.1),
    "exp": ("float32(math.exp({0}))", 6.0),
    "log": ("float32(math.log({0}))", 6.0),
    "log1p": ("float32(math.log1p({0}))", 10.0),
    "tanh": ("float32(math.tanh({0}))", 10.0),
    "sin": ("float32(math.sin({0}))", 10.0),
    "cos": ("float32(math.cos({0}))", 10.0),
    "sqrt": ("float32(math.sqrt({0}))", 0.5),
    "absolute": ("abs({0})", 0.1),
    # A comparison with NaN is false, and the other operand must still give NaN: as in numpy.
    "maximum": ("({0} if {0} >= {1} or {0} != {0} else {1})", 0.3),
    "minimum": ("({0} if {0} <= {1} or {0} != {0} else {1})", 0.3),
    "greater": ("(one if {0} > {1} else zero)", 0.2),
}
PRODUCT_NS = 0.25
CALL_NS = 230.0


def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def pays(instructions: list[Instruction]) -> bool:
    """Whether loops are sure to beat numpy's calls; False also where an instruction has no loop."""
    loops_ns = calls_ns = 0.0
    for instruction in instructions:
        operation, size = instruction.operation, instruction.out.size
        if operation == "dot":
            loops_ns += PRODUCT_NS * _multiplications(instruction)
            calls_ns += 0.02 * _multiplications(instruction)
        elif operation in NUMBERS and instruction.out.buffer is not None:
            loops_ns += NUMBERS[operation][1] * size
            calls_ns += 0.1 * size
        else:
            return False
        if any(v.buffer is not None and v.buffer.dtype == "int64" for v in instruction.operands):
            return False
        calls_ns += CALL_NS
    return loops_ns < 0.9 * calls_ns


def _multiplications(instruction: Instruction) -> int:
    """Of a product: m n k."""
    return instruction.out.size * instruction.operands[1].kept[0]


def compile_loops(
    instructions: list[Instruction],
    *,
    inputs: list[str],
    statistics: np.ndarray[Any, Any],
    known: list[Any],
    fitting: Callable[[int, Any], Any],
) -> Program:
    """As `chainrule_engine.plan.numpy_program.compile_program`, by numba. The first step takes a second or two: it
    compiles."""
    import numba

    for instruction in instructions:
        if instruction.out.buffer is not None:
            instruction.out.buffer.dtype = "float32"  # truth values are 1 and 0 here
    arena = arena_of(instructions)
    writer = _LoopWriter(instructions, inputs, arena)
    source = writer.source()
    # Numbers that are out of the range of float32, and what is made of them, may be infinite or NaN.
    numbers = {"one": np.float32(1), "zero": np.float32(0), "inf": math.inf, "nan": math.nan}
    namespace: dict[str, Any] = {"math": math, "float32": np.float32, **numbers}
    exec(compile(source, "<plan>", "exec"), namespace)  # noqa: S102  (the source is our own: names, shapes and numbers)
    compiled = numba.njit(namespace.pop("step"), fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
    memory = aligned_zeros(arena.size)
    owned = (memory, statistics, *writer.objects.values())

    def bind(parameters: Any, gradient: Any) -> Callable[..., None]:
        given = (*owned, parameters, gradient)

        def step(named: Mapping[str, Any]) -> None:
            arrays = [named[name] for name in inputs]
            for index, array in enumerate(arrays):
                if array is not known[index]:
                    arrays[index] = fitting(index, array)
            compiled(*given, *arrays)

        return step

    return Program(bind, memory, source)


class _LoopWriter:
    def __init__(self, instructions: list[Instruction], inputs: list[str], arena: Arena) -> None:
        self._instructions = instructions
        self._arena = arena
        self._inputs = {name: f"x{index}" for index, name in enumerate(inputs)}
        self.objects: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._numbers: dict[float, str] = {}
        self._lines: list[str] = []

    def source(self) -> str:
        waiting: list[Instruction] = []
        for instruction in self._instructions:
            if waiting and not self._joins(waiting, instruction):
                self._loop(waiting)
                waiting = []
            if instruction.operation == "dot":
                self._product(instruction)
            else:
                waiting.append(instruction)
        if waiting:
            self._loop(waiting)
        arguments = ["arena", "statistics", *self.objects, "parameters", "gradient", *self._inputs.values()]
        numbers = [f"    {name} = float32({number!r})" for number, name in self._numbers.items()]
        flat = [f"    {name} = {name}.reshape({name}.size)" for name in [*self.objects, *self._inputs.values()]]
        return "\n".join([f"def step({', '.join(arguments)}):", *flat, *numbers, *self._lines, "    return"])

    def _joins(self, waiting: list[Instruction], instruction: Instruction) -> bool:
        """Whether an instruction can run in the loop of those before: element by element, it reads what they wrote."""
        if instruction.operation == "dot" or instruction.out.kept != waiting[0].out.kept:
            return False
        written = [other.out for other in waiting]
        for value in instruction.operands:
            if any(
                value.buffer is out.buffer and self._access(value, out.kept) != self._access(out, out.kept)
                for out in written
            ):
                return False
        # What an earlier one reads at another place must not be overwritten here.
        out_access = self._access(instruction.out, instruction.out.kept)
        return all(
            not self._overlaps(value, instruction.out) or self._access(value, instruction.out.kept) == out_access
            for other in waiting
            for value in (*other.operands, other.out)
        )

    def _overlaps(self, value: Traced, out: Traced) -> bool:
        if value.buffer is None or out.buffer is None:
            return False
        if value.buffer is out.buffer:
            return True
        if value.buffer.kind != "temporary" or out.buffer.kind != "temporary":
            return False
        start, other = self._arena.places[value.buffer], self._arena.places[out.buffer]
        return start < other + out.buffer.size and other < start + value.buffer.size

    def _loop(self, instructions: list[Instruction]) -> None:
        shape = instructions[0].out.kept
        accesses = [self._access(v, shape) for i in instructions for v in (*i.operands, i.out) if v.buffer is not None]
        lengths, order = (shape, range(len(shape)))
        if all(self._is_flat(access, shape) for access in accesses):
            lengths, order = ((math.prod(shape),), range(1))
        depth = 1
        for axis in order:
            self._lines.append("    " * depth + f"for i{axis} in range({lengths[axis]}):")
            depth += 1
        for instruction in instructions:
            operands = [self._element(value, shape, len(lengths)) for value in instruction.operands]
            text = NUMBERS[instruction.operation][0].format(*operands)
            out = self._element(instruction.out, shape, len(lengths))
            self._lines.append("    " * depth + f"{out} = {text}")

    def _product(self, instruction: Instruction) -> None:
        a, b = instruction.operands
        out = instruction.out
        m = a.kept[0] if a.ndim == 2 else 1
        n = b.kept[1] if b.ndim == 2 else 1
        k = b.kept[0]
        (an, ao, sa), (bn, bo, sb), (on, oo, so) = (self._access(v, v.kept) for v in (a, b, out))
        ai, ak = sa if a.ndim == 2 else (0, sa[0])
        bk, bj = sb if b.ndim == 2 else (sb[0], 0)
        oi, oj = so if len(so) == 2 else ((so[0], 0) if a.ndim == 2 else (0, so[0])) if so else (0, 0)
        if bj == 1 and oj == 1 and n > 1:
            self._lines += [
                f"    for i in range({m}):",
                f"        for j in range({n}):",
                f"            {on}[{oo} + {oi} * i + j] = zero",
                f"        for k in range({k}):",
                f"            s = {an}[{ao} + {ai} * i + {ak} * k]",
                f"            for j in range({n}):",
                f"                {on}[{oo} + {oi} * i + j] += s * {bn}[{bo} + {bk} * k + j]",
            ]
            return
        self._lines += [
            f"    for i in range({m}):",
            f"        for j in range({n}):",
            "            s = zero",
            f"            for k in range({k}):",
            f"                s += {an}[{ao} + {ai} * i + {ak} * k] * {bn}[{bo} + {bk} * k + {bj} * j]",
            f"            {on}[{oo} + {oi} * i + {oj} * j] = s",
        ]

    @staticmethod
    def _is_flat(access: tuple[str, int, tuple[int, ...]], shape: tuple[int, ...]) -> bool:
        expected, step = [], 1
        for length in reversed(shape):
            expected.append(0 if length == 1 else step)
            step *= length
        strides = tuple(0 if length == 1 else stride for length, stride in zip(shape, access[2], strict=True))
        return strides == tuple(reversed(expected))

    def _element(self, value: Traced, shape: tuple[int, ...], depth: int) -> str:
        if value.buffer is None:
            return self._numbers.setdefault(value.number, f"c{len(self._numbers)}")
        name, offset, strides = self._access(value, shape)
        if depth == 1 and len(shape) != 1:
            return f"{name}[{offset} + i0]"
        terms = [f"{stride} * i{axis}" for axis, stride in enumerate(strides) if stride]
        return f"{name}[{' + '.join([str(offset), *terms])}]"

    def _access(self, value: Traced, shape: tuple[int, ...]) -> tuple[str, int, tuple[int, ...]]:
        """The flat array a value is in, where it starts and its strides, repeated to `shape`: in elements."""
        buffer = value.buffer
        if buffer is None:
            return ("", 0, (0,) * len(shape))
        base = np.empty(buffer.shape, np.int8)  # one byte an element, and never touched
        view = eval(f"base{value.view}", {"base": base})  # noqa: S307  (a text of our own: see `Traced`)
        view = np.broadcast_to(view, shape)
        offset = view.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        name, start = self._place(buffer)
        strides = tuple(0 if length == 1 else stride for length, stride in zip(shape, view.strides, strict=True))
        return name, start + offset, strides

    def _place(self, buffer: Buffer) -> tuple[str, int]:
        if buffer.kind == "temporary":
            return "arena", self._arena.places[buffer]
        if buffer.kind == "input":
            return self._inputs[buffer.name], 0
        if buffer.kind in ("constant", "kept"):
            if id(buffer.value) not in self._names:
                self._names[id(buffer.value)] = name = f"k{len(self.objects)}"
                self.objects[name] = buffer.value
            return self._names[id(buffer.value)], 0
        return {"parameter": "parameters", "gradient": "gradient", "statistic": "statistics"}[buffer.kind], buffer.start
