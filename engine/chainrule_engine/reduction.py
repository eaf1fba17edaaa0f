"""The balanced binary tree along which partial sums are added, whoever computes them.

Floating-point addition is not associative, so the order of a sum decides its bits. Here it is fixed by the number of
shards alone: a node of the tree covers an aligned range of shards, its sum is left + right, and a shard without rows is
left out (adding zeros would turn -0.0 into 0.0). A worker adds up the maximal subtrees that it owns; the server adds up
the rest of the same tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.errors import SettingError
from chainrule_engine.parameters import Vector
from chainrule_engine.precision import Rounding


@dataclass(frozen=True, order=True)
class Subtree:
    """The node of the tree that covers the shards first … first + count - 1; count is a power of two."""

    first: int
    count: int

    @property
    def halves(self) -> tuple[Subtree, Subtree]:
        """The two children, left and right."""
        half = self.count // 2
        return Subtree(self.first, half), Subtree(self.first + half, half)


@dataclass
class PartialSum:
    """What a subtree's microbatches add up to.

    gradient: (n,) float32, or None for an evaluation. sums: (k,) float64: the loss, then sums of the metrics."""

    row_count: int
    sums: NDArray[np.float64]
    gradient: Vector | None = None

    def add(self, other: PartialSum) -> None:
        """Add the right sibling to this left one, in place."""
        self.row_count += other.row_count
        self.sums += other.sums
        if self.gradient is not None and other.gradient is not None:
            np.add(self.gradient, other.gradient, out=self.gradient)


def check_shard_count(shard_count: int) -> None:
    """Raise SettingError unless the number of shards is a power of two."""
    if shard_count < 1 or shard_count & (shard_count - 1):
        lower = 1 << max(shard_count, 1).bit_length() - 1
        raise SettingError("training.shards", f"must be a power of two, got {shard_count}; take {lower} or {2 * lower}")


def maximal_subtrees(*, first: int, stop: int) -> list[Subtree]:
    """The fewest aligned subtrees that cover the shards first … stop - 1, from left to right."""
    subtrees = []
    while first < stop:
        alignment = first & -first or 1 << (stop - first).bit_length() - 1
        count = min(alignment, 1 << (stop - first).bit_length() - 1)
        subtrees.append(Subtree(first, count))
        first += count
    return subtrees


def assign(*, shard_count: int, worker_count: int) -> list[range]:
    """A contiguous range of shards for each worker; sizes differ by at most one, earlier workers have more."""
    quotient, remainder = divmod(shard_count, worker_count)
    starts = [worker * quotient + min(worker, remainder) for worker in range(worker_count + 1)]
    return [range(start, stop) for start, stop in pairwise(starts)]


def reduce_subtree(subtree: Subtree, leaf: Callable[[int], PartialSum | None]) -> PartialSum | None:
    """The sum over a subtree, computing each shard by `leaf`; None where no shard has rows.

    At most log2(count) + 1 partial sums are held at a time: the left sibling waits while the right one is computed."""
    if subtree.count == 1:
        return leaf(subtree.first)
    left, right = subtree.halves
    return _sum_of(reduce_subtree(left, leaf), reduce_subtree(right, leaf))


@dataclass(frozen=True)
class Turn:
    """A shard's turn in the sum over a subtree, with a few vectors 0, 1, 2 … to hold the sums that wait.

    The shard's own goes to vector `place`; then, `additions` times, each vector is added to the one before it:
    place to place - 1, that to place - 2, and so on. After the last turn the whole sum is in vector 0."""

    shard: int
    place: int
    additions: int


def turns(subtree: Subtree, has_rows: Callable[[int], bool]) -> list[Turn]:
    """The order in which a subtree's shards are computed and added: the additions of `reduce_subtree`, written down.

    At most log2(count) + 1 vectors are used. Shards without rows have no turn."""
    found: list[Turn] = []
    _take_turns(subtree, 0, has_rows, found)
    return found


def _take_turns(node: Subtree, place: int, has_rows: Callable[[int], bool], found: list[Turn]) -> bool:
    """Add the turns of a node, whose sum is left at `place`; whether it has any.

    A function of its own: one inside another that calls itself is held by itself, with all that it is given."""
    if node.count == 1:
        if has_rows(node.first):
            found.append(Turn(node.first, place, 0))
            return True
        return False
    left, right = node.halves
    has_left = _take_turns(left, place, has_rows, found)
    has_right = _take_turns(right, place + 1 if has_left else place, has_rows, found)
    if has_left and has_right:
        found[-1] = replace(found[-1], additions=found[-1].additions + 1)
    return has_left or has_right


def finish(root: Subtree, partial_sums: Mapping[Subtree, PartialSum | None]) -> PartialSum | None:
    """The sum over the whole tree from the partial sums of disjoint subtrees that cover it.

    Left partial sums are overwritten. Raises KeyError where a shard is covered by none."""
    if root in partial_sums:
        return partial_sums[root]
    if root.count == 1:
        raise KeyError(f"no partial sum covers shard {root.first}")
    left, right = root.halves
    return _sum_of(finish(left, partial_sums), finish(right, partial_sums))


class TreeSum:
    """The sum of the partial sums of disjoint subtrees along the fixed tree, for any range of the vector.

    The same bits as `finish`, but nothing is written to the partial sums. row_count: the rows of memory it works in,
    at most log2 of the number of shards, at least 1."""

    def __init__(self, subtrees: Sequence[Subtree], rounding: Rounding | None = None) -> None:
        """subtrees: those that have rows, at least one; in this order `add_up` takes their vectors.

        rounding: what every sum is rounded with, as the partial sums were already."""
        if not subtrees:
            raise ValueError("a sum needs at least one subtree with rows")
        self.subtrees = tuple(subtrees)
        self.row_count = 1
        self._rounding = rounding
        # (row to write, left, right); a left or right from 0 up is a partial sum, and ~row below.
        self._additions: list[tuple[int, int, int]] = []
        indices = {subtree: index for index, subtree in enumerate(subtrees)}
        last = max(subtree.first + subtree.count for subtree in subtrees)
        root = Subtree(0, 1 << (last - 1).bit_length())
        self._result = self._add(root, indices, 0) or 0
        if indices or len(set(subtrees)) < len(subtrees):
            raise ValueError(f"the subtrees {', '.join(map(str, subtrees))} overlap or are no nodes of the tree")
        # Two workers are so common, and small steps so short, that a loop would show.
        self._is_pair = self._additions == [(0, 0, 1)]

    def add_up(self, partial_sums: Sequence[Vector], start: int, stop: int, rows: NDArray[np.float32]) -> Vector:
        """The sum of the elements start … stop - 1: (stop - start,), in rows[0], or the one partial sum itself.

        partial_sums: whole vectors, (n,) float32. rows: (row_count or more, stop - start or more)."""
        size = stop - start
        if self._is_pair:
            left, right = partial_sums
            if left.size != size:
                left, right = left[start:stop], right[start:stop]
            total = np.add(left, right, out=rows[0, :size])
            if self._rounding is not None:
                self._rounding(total, total)
            return total
        if not self._additions:
            return partial_sums[self._result][start:stop]
        cut = [rows[row, :size] for row in range(self.row_count)]
        for row, left_index, right_index in self._additions:
            left = partial_sums[left_index][start:stop] if left_index >= 0 else cut[~left_index]
            right = partial_sums[right_index][start:stop] if right_index >= 0 else cut[~right_index]
            np.add(left, right, out=cut[row])
            if self._rounding is not None:
                self._rounding(cut[row], cut[row])
        return cut[0]

    def _add(self, node: Subtree, indices: dict[Subtree, int], row: int) -> int | None:
        """Note the additions of a node, whose sum goes to `row`; where it is, None where the node has no rows."""
        if node in indices:
            return indices.pop(node)
        if node.count == 1:
            return None
        left_node, right_node = node.halves
        left = self._add(left_node, indices, row)
        right = self._add(right_node, indices, row + 1 if left is not None and left < 0 else row)
        if left is None or right is None:
            return right if left is None else left
        self._additions.append((row, left, right))
        self.row_count = max(self.row_count, row + 1)
        return ~row


def covers(root: Subtree, subtrees: Iterable[Subtree]) -> bool:
    """Whether disjoint subtrees cover every shard of the tree."""
    return sum(subtree.count for subtree in subtrees) == root.count


def _sum_of(left: PartialSum | None, right: PartialSum | None) -> PartialSum | None:
    if left is None or right is None:
        return left or right
    left.add(right)
    return left
