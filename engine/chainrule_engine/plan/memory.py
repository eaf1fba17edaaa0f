"""Gives every temporary a place in one arena: as early as it can be had, for no longer than it is needed.

Straight-line code makes it simple: a buffer lives from the instruction that first writes it to the last that reads it.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from chainrule_engine.plan.trace import Buffer, Instruction, Traced

# Places start at multiples of 64 bytes, a cache line.
ALIGNMENT = 16


@dataclass
class Arena:
    """Where temporaries lie, counted in float32 elements."""

    size: int = 0
    places: dict[Buffer, int] = field(default_factory=dict)


@dataclass
class _FreeList:
    """Gaps (start, size) in order of start, and the end of what was ever used."""

    gaps: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0

    def take(self, size: int) -> int:
        fitting = [gap for gap in self.gaps if gap[1] >= size]
        if not fitting:
            start = self.end
            if self.gaps and sum(self.gaps[-1]) == self.end:  # grow the last gap rather than leave it
                start = self.gaps.pop()[0]
            self.end = start + size
            return start
        start, available = min(fitting, key=lambda gap: gap[1])
        self.gaps.remove((start, available))
        if available > size:
            insort(self.gaps, (start + size, available - size))
        return start

    def give_back(self, start: int, size: int) -> None:
        insort(self.gaps, (start, size))
        index = self.gaps.index((start, size))
        if index + 1 < len(self.gaps) and start + size == self.gaps[index + 1][0]:
            self.gaps[index] = (start, size + self.gaps.pop(index + 1)[1])
        if index and sum(self.gaps[index - 1]) == start:
            before = self.gaps[index - 1]
            self.gaps[index - 1] = (before[0], before[1] + self.gaps.pop(index)[1])


def room(buffer: Buffer) -> int:
    """What a buffer takes, in float32 elements, up to the next multiple of a cache line."""
    count = buffer.size if buffer.dtype == "float32" else -(-buffer.size // 4)
    return max(ALIGNMENT, -(-count // ALIGNMENT) * ALIGNMENT)


def arena_of(instructions: list[Instruction]) -> Arena:
    """Place all temporaries of the instructions."""
    last: dict[Buffer, int] = {}
    for position, instruction in enumerate(instructions):
        for value in (*instruction.operands, instruction.out):
            if value.buffer is not None:
                last[value.buffer] = position
    arena, free = Arena(), _FreeList()
    for position, instruction in enumerate(instructions):
        out = instruction.out.buffer
        ending = _ending(instruction, position, last)
        if out is not None and out.kind == "temporary" and out not in arena.places:
            inherited = next((b for b in ending if instruction.elementwise and _in_place(instruction, b)), None)
            if inherited is not None:
                arena.places[out] = arena.places[inherited]
                ending.remove(inherited)
            else:
                arena.places[out] = free.take(room(out))
        if out is not None and out.kind == "temporary" and last[out] == position and out not in ending:
            ending.append(out)  # written and never read
        for buffer in ending:
            free.give_back(arena.places[buffer], room(buffer))
    arena.size = free.end
    return arena


def _ending(instruction: Instruction, position: int, last: dict[Buffer, int]) -> list[Buffer]:
    """The temporaries that this instruction reads last."""
    buffers = dict.fromkeys(value.buffer for value in instruction.operands)
    return [
        buffer
        for buffer in buffers
        if buffer is not None and buffer.kind == "temporary" and last[buffer] == position
        and buffer is not instruction.out.buffer
    ]  # fmt: skip


def _in_place(instruction: Instruction, buffer: Buffer) -> bool:
    """Whether the result may overwrite an operand: every use of it reads just the element that is written."""
    if buffer.size == 1:  # numpy is four times slower on one number in place
        return False
    uses = [value for value in instruction.operands if value.buffer is buffer]
    out = instruction.out.buffer
    same = out is not None and instruction.out.whole and buffer.size == out.size and buffer.dtype == out.dtype
    return same and all(_same_elements(value, instruction.out) for value in uses)


def _same_elements(value: Traced, out: Traced) -> bool:
    return value.whole and value.contiguous and _trimmed(value.kept) == _trimmed(out.kept)


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length > 1)
