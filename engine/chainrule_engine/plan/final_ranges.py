"""When each part of the gradient vector is final, while earlier layers' gradients are still to come."""

from __future__ import annotations

from chainrule_engine.plan.trace import Instruction

Range = tuple[int, int]

# Elements that are worth an announcement of their own: smaller parameters are announced together with the next.
WORTH_ANNOUNCING = 65536


def final_ranges(instructions: list[Instruction]) -> dict[int, list[Range]]:
    """After which instruction (by its position) which ranges of the gradient are final; each element in exactly one.

    The order is that of the backward pass: the last layer first."""
    last: dict[Range, int] = {}
    for position, instruction in enumerate(instructions):
        buffer = instruction.out.buffer
        if buffer is not None and buffer.kind == "gradient":
            last[buffer.start, buffer.start + buffer.size] = position
    announcements: dict[int, list[Range]] = {}
    waiting: list[Range] = []
    for end, (extent, position) in enumerate(sorted(last.items(), key=lambda item: item[1]), start=1):
        waiting.append(extent)
        if end == len(last) or sum(stop - start for start, stop in waiting) >= WORTH_ANNOUNCING:
            announcements.setdefault(position, []).extend(_joined(waiting))
            waiting = []
    return announcements


def _joined(ranges: list[Range]) -> list[Range]:
    """The same elements in the fewest ranges, from left to right."""
    joined: list[Range] = []
    for start, stop in sorted(ranges):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
