"""Writes the instructions as straight-line Python and binds it to memory.

The source holds only names that are made here, shapes and numbers: nothing of what a user wrote. It has three nested
functions: the outermost makes the views of what the plan owns, once; the next the views of a caller's parameters and
gradient, kept as long as the same arrays come; the innermost is the step, a list of calls on names, each with the
array to write to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.plan.memory import Arena, arena_of
from chainrule_engine.plan.trace import Buffer, Instruction, Traced

# A number is repeated for all of a small array, for a row of a large one with long rows.
SMALL, SHORT_ROW = 4096, 64

# Where in the nesting a name is made: with the plan, with the caller's arrays, in the step.
OWNED, CALLERS, STEP = range(3)
_LEVELS = {"parameter": CALLERS, "gradient": CALLERS, "input": STEP}


@dataclass
class Program:
    """Compiled instructions. bind(parameters, gradient) gives the step, a function of the inputs by name.

    arena: (size,) float32, the temporaries. source: for looking at."""

    bind: Callable[..., Callable[..., None]]
    arena: NDArray[np.float32]
    source: str


@dataclass
class _Writer:
    arena: Arena
    names: dict[tuple[Any, ...], str] = field(default_factory=dict)
    prelude: dict[int, list[str]] = field(default_factory=lambda: {OWNED: [], CALLERS: [], STEP: []})
    step: list[str] = field(default_factory=list)
    objects: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    def name_of(self, value: Traced) -> str:
        """The name of a view, made at its level the first time."""
        key = value.key
        if key not in self.names:
            self.names[key] = self._made(value)
        return self.names[key]

    def _made(self, value: Traced) -> str:
        buffer = value.buffer
        if buffer is None:
            return self._object("c", np.array(value.number, np.float32))
        base = self._base(buffer)
        if not value.view and buffer.kind != "temporary":
            return base
        return self._assigned(f"{base}{value.view}", _LEVELS.get(buffer.kind, OWNED))

    def _assigned(self, text: str, level: int) -> str:
        """The name of a view by its text: temporaries that share a place and a shape share the view, too."""
        key = ("text", text)
        if key not in self.names:
            self.names[key] = name = f"v{len(self.names)}"
            self.prelude[level].append(f"{name} = {text}")
        return self.names[key]

    def _base(self, buffer: Buffer) -> str:
        """The text of a buffer as an array of its own shape."""
        if buffer.kind == "temporary":
            start = self.arena.places[buffer]
            if buffer.dtype == "bool":
                room = -(-buffer.size // 4)
                return f"arena[{start}:{start + room}].view(bool)[:{buffer.size}].reshape({_text(buffer.shape)})"
            return f"arena[{start}:{start + buffer.size}].reshape({_text(buffer.shape)})"
        if buffer.kind in ("constant", "kept"):
            return self._object("k", buffer.value, key=("object", id(buffer.value)))
        if buffer.kind == "input":
            return self.inputs[buffer.name]
        vector = {"parameter": "parameters", "gradient": "gradient", "statistic": "statistics"}[buffer.kind]
        text = f"{vector}[{buffer.start}:{buffer.start + buffer.size}].reshape({_text(buffer.shape)})"
        return self._assigned(text, _LEVELS.get(buffer.kind, OWNED))

    def _object(self, letter: str, value: Any, key: tuple[Any, ...] | None = None) -> str:
        if key is not None and key in self.names:
            return self.names[key]
        name = f"{letter}{len(self.objects)}"
        self.objects[name] = value
        if key is not None:
            self.names[key] = name
        return name

    def _repeated(self, value: Traced, name: str, out: Traced) -> str:
        """A number as an array: with a single number numpy's maximum and minimum take 5 times as long."""
        if value.buffer is not None or not out.shape:
            return name
        size, last = math.prod(out.kept), out.kept[-1]
        shape = out.kept if size <= SMALL or last < SHORT_ROW else (last,)
        key = ("repeated", value.number, shape)
        return self._object("k", np.full(shape, value.number, np.float32), key=key)

    def write(self, instruction: Instruction) -> None:
        operands = [self.name_of(value) for value in instruction.operands]
        if instruction.operation in ("maximum", "minimum"):
            operands = [
                self._repeated(v, n, instruction.out) for v, n in zip(instruction.operands, operands, strict=True)
            ]
        out = self.name_of(instruction.out)
        self.step.append(_call(instruction, operands, out, self.objects))


def compile_program(
    instructions: list[Instruction],
    *,
    inputs: list[str],
    statistics: np.ndarray[Any, Any],
    known: list[Any],
    fitting: Callable[[int, Any], Any],
    announcements: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    memory: NDArray[np.float32] | None = None,
) -> Program:
    """Place, write and compile the instructions.

    inputs: the names of the inputs. known: of each the last array that fitted. fitting: checks another one.
    announcements: after which instructions to announce which ranges; the step then has a second argument, the function
    to call with each. memory: the arena of another program of the same instructions, to be shared with it."""
    arena = arena_of(instructions)
    writer = _Writer(arena, inputs={name: f"x{index}" for index, name in enumerate(inputs)})
    for position, instruction in enumerate(instructions):
        writer.write(instruction)
        if announcements is not None:
            writer.step += [f"announce({start}, {stop})" for start, stop in announcements.get(position, ())]
    fetched = []
    for index, name in enumerate(inputs):
        # An array that was looked at last time is not looked at again.
        writer.objects[f"n{index}"] = name
        fetched += [f"x{index} = inputs[n{index}]", f"if x{index} is not known[{index}]:"]
        fetched += [f"    x{index} = fitting({index}, x{index})"]
    lines = [
        "def plan(arena, statistics, known, fitting):",
        *_indented(writer.prelude[OWNED], 1),
        "    def bind(parameters, gradient):",
        *_indented(writer.prelude[CALLERS], 2),
        "        def step(inputs):" if announcements is None else "        def step(inputs, announce):",
        *_indented(fetched, 3),
        *_indented(writer.prelude[STEP], 3),
        *_indented(writer.step, 3),
        "            return",
        "        return step",
        "    return bind",
    ]
    source = "\n".join(lines)
    namespace: dict[str, Any] = {"bool": np.bool_, **writer.objects}
    exec(compile(source, "<plan>", "exec"), namespace)  # noqa: S102  (the source is our own, see above)
    if memory is None:
        memory = aligned_zeros(arena.size)
    # Taken out of the names that it is defined among: else it would hold them, and they it.
    plan = namespace.pop("plan")
    return Program(plan(memory, statistics, known, fitting), memory, source)


def aligned_zeros(size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A float32 array that starts at a cache line."""
    memory = np.zeros(size + 16, np.float32)
    start = (-memory.ctypes.data // 4) % 16
    return memory[start : start + size]


def _call(instruction: Instruction, operands: list[str], out: str, objects: dict[str, Any]) -> str:
    operation, detail = instruction.operation, instruction.detail
    if operation == "dot":
        return f"{operands[0]}.dot({operands[1]}, {out})"
    if operation == "copy":
        objects["copyto"] = np.copyto
        return f"copyto({out}, {operands[0]})"
    if operation in ("add_reduce", "maximum_reduce"):
        objects[operation] = getattr(np, operation.removesuffix("_reduce")).reduce
        axes, keepdims = detail
        return f"{operation}({operands[0]}, {axes}, None, {out}, {keepdims})"
    if operation == "sum_rows":
        objects["add_reduce"], objects["float64"] = np.add.reduce, np.float64
        return f"add_reduce({operands[0]}, 0, float64, {out})"
    if operation == "sum_squares":
        objects["sum_squares"] = _sum_squares
        return f"sum_squares({operands[0]}, {out})"
    if operation == "einsum":
        objects["einsum"] = np.einsum
        return f"einsum({detail[0]!r}, {', '.join(operands)}, out={out}, optimize=True)"
    objects[operation] = getattr(np, operation)
    # By position is faster, but maximum and minimum no longer take their result so.
    keyword = "out=" if operation in ("maximum", "minimum") else ""
    return f"{operation}({', '.join(operands)}, {keyword}{out})"


def _sum_squares(rows: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> None:
    np.einsum("r...,r...->...", rows, rows, dtype=np.float64, casting="safe", out=out)


def _text(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape)) if shape else "()"


def _indented(lines: list[str], depth: int) -> list[str]:
    return ["    " * depth + line for line in lines]
