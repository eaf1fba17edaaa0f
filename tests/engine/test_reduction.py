"""The tree: the bits of a sum depend on the shards alone, never on who adds them up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule_engine.errors import SettingError
from chainrule_engine.reduction import (
    PartialSum,
    Subtree,
    assign,
    check_shard_count,
    finish,
    maximal_subtrees,
    reduce_subtree,
)

powers = st.integers(0, 6).map(lambda exponent: 2**exponent)


def leaves(shard_count: int, seed: int, empty: frozenset[int]) -> list[PartialSum | None]:
    """Sums of very different sizes, so that every order of adding gives other bits."""
    random = np.random.default_rng(seed)
    return [
        None
        if shard in empty
        else PartialSum(
            shard + 1,
            random.standard_normal(2) * 10.0 ** random.integers(-8, 8),
            (random.standard_normal(16) * 10.0 ** random.integers(-8, 8, 16)).astype(np.float32),
        )
        for shard in range(shard_count)
    ]


def bits(total: PartialSum | None) -> object:
    return None if total is None else (total.row_count, total.sums.tobytes(), total.gradient.tobytes())


@given(powers, st.integers(0, 2**32), st.data())
def test_any_number_of_workers_gives_the_same_bits(shard_count: int, seed: int, data: st.DataObject) -> None:
    worker_count = data.draw(st.integers(1, shard_count))
    empty = data.draw(st.frozensets(st.integers(0, shard_count - 1)))
    root = Subtree(0, shard_count)
    alone = reduce_subtree(root, leaves(shard_count, seed, empty).__getitem__)
    pushed: dict[Subtree, PartialSum | None] = {}
    for shards in assign(shard_count=shard_count, worker_count=worker_count):
        for subtree in maximal_subtrees(first=shards.start, stop=shards.stop):
            pushed[subtree] = reduce_subtree(subtree, leaves(shard_count, seed, empty).__getitem__)
    assert bits(finish(root, pushed)) == bits(alone)


def test_adding_in_another_order_would_give_other_bits() -> None:
    every = [leaf for leaf in leaves(8, 3, frozenset()) if leaf is not None]
    tree = reduce_subtree(Subtree(0, 8), leaves(8, 3, frozenset()).__getitem__)
    for leaf in every[1:]:
        every[0].add(leaf)
    assert bits(every[0]) != bits(tree)


@given(powers, st.data())
def test_maximal_subtrees_are_aligned_cover_the_range_once_and_are_the_fewest(
    shard_count: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, shard_count - 1))
    stop = data.draw(st.integers(first + 1, shard_count))
    subtrees = maximal_subtrees(first=first, stop=stop)
    covered = [shard for subtree in subtrees for shard in range(subtree.first, subtree.first + subtree.count)]
    assert covered == list(range(first, stop))
    assert all(subtree.first % subtree.count == 0 for subtree in subtrees)
    siblings = {(subtree.first // subtree.count // 2, subtree.count) for subtree in subtrees}
    assert len(siblings) == len(subtrees), "two siblings should be one subtree"


@given(st.integers(1, 64), st.integers(1, 64))
def test_assigned_ranges_cover_every_shard_and_differ_by_at_most_one(shard_count: int, worker_count: int) -> None:
    ranges = assign(shard_count=shard_count, worker_count=worker_count)
    assert [shard for shards in ranges for shard in shards] == list(range(shard_count))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def test_a_subtree_holds_at_most_log2_plus_one_partial_sums_at_a_time() -> None:
    class Counted(PartialSum):
        alive = most = 0

        def __init__(self) -> None:
            super().__init__(1, np.zeros(1), np.zeros(1, np.float32))
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)

        def __del__(self) -> None:
            Counted.alive -= 1

    reduce_subtree(Subtree(0, 64), lambda _shard: Counted())
    assert Counted.most <= 7


def test_a_missing_subtree_is_an_error_and_not_a_smaller_sum() -> None:
    with pytest.raises(KeyError, match="shard 1"):
        finish(Subtree(0, 2), {Subtree(0, 1): None})


@pytest.mark.parametrize(
    ("shard_count", "better"), [(0, "1 or 2"), (3, "2 or 4"), (6, "4 or 8"), (1000, "512 or 1024")]
)
def test_a_shard_count_that_is_no_power_of_two_is_refused_with_two_that_are(shard_count: int, better: str) -> None:
    with pytest.raises(SettingError, match=better):
        check_shard_count(shard_count)
