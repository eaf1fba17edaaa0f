"""Rows: each in one shard, each once in an epoch, the same for everyone who asks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule_engine.errors import SettingError
from chainrule_engine.sharding import BatchSchedule, divide, evaluation_blocks


@given(st.integers(8, 400), st.sampled_from([1, 2, 4, 8]), st.floats(0, 0.5), st.integers(0, 2**63))
def test_every_row_is_in_exactly_one_shard_and_sizes_differ_by_at_most_one(
    row_count: int, shard_count: int, fraction: float, seed: int
) -> None:
    if row_count - round(row_count * fraction) < shard_count:
        return
    division = divide(row_count=row_count, shard_count=shard_count, validation_fraction=fraction, seed=seed)
    assert sorted(np.concatenate([*division.training, *division.validation])) == list(range(row_count))
    for shards in (division.training, division.validation):
        sizes = [len(rows) for rows in shards]
        assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 20), st.integers(0, 5))
def test_every_epoch_takes_every_row_of_every_shard_once(sizes: list[int], microbatch_size: int, epoch: int) -> None:
    schedule = BatchSchedule(seed=3, shard_sizes=tuple(sizes), microbatch_size=microbatch_size)
    for shard, size in enumerate(sizes):
        taken = []
        for step_in_epoch in range(schedule.steps_per_epoch):
            rows = schedule.order(shard, epoch)[schedule.rows(step_in_epoch)]
            assert len(rows) == schedule.row_count(shard, step_in_epoch)
            taken.extend(rows)
        assert sorted(taken) == list(range(size))


def test_each_epoch_each_shard_and_each_seed_has_its_own_order() -> None:
    orders = {
        BatchSchedule(seed=seed, shard_sizes=(40, 40), microbatch_size=4).order(shard, epoch).tobytes()
        for seed in (0, 1)
        for shard in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 8


def test_a_division_is_the_same_in_every_process_for_ever() -> None:
    division = divide(row_count=12, shard_count=2, validation_fraction=0.25, seed=0)
    assert [rows.tolist() for rows in division.training + division.validation] == PINNED


PINNED = [[7, 11, 10, 0, 8], [1, 6, 2, 4], [9, 5], [3]]


def test_fewer_rows_than_shards_are_refused() -> None:
    with pytest.raises(SettingError, match="8 training rows"):
        divide(row_count=5, shard_count=8, validation_fraction=0.0, seed=0)


def test_steps_are_counted_from_1_and_epochs_from_0() -> None:
    schedule = BatchSchedule(seed=0, shard_sizes=(5, 4), microbatch_size=2)
    assert [schedule.position(step) for step in (1, 3, 4)] == [(0, 0), (0, 2), (1, 0)]


def test_evaluation_blocks_cover_all_rows() -> None:
    assert evaluation_blocks(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert evaluation_blocks(0, 2) == []


@pytest.mark.parametrize(("row_count", "count"), [(10, 2), (23, 5), (7, 7)])
def test_folds_have_no_row_in_common_and_together_all_rows(row_count: int, count: int) -> None:
    folds = [
        divide(row_count=row_count, shard_count=2, validation_fraction=0.0, seed=3, fold=(number, count))
        for number in range(count)
    ]
    held_out = [set(fold.validation_rows.tolist()) for fold in folds]
    assert sorted(row for rows in held_out for row in rows) == list(range(row_count))
    assert max(map(len, held_out)) - min(map(len, held_out)) <= 1
    for fold, rows in zip(folds, held_out, strict=True):
        assert set(fold.training_rows.tolist()) == set(range(row_count)) - rows
