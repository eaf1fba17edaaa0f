"""Which rows belong to which shard, and which rows a microbatch takes: the same on every worker, for ever.

All of it follows from the seed and the number of rows, so any worker can compute any shard's microbatch at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.errors import SettingError
from chainrule_engine.randomness import generator

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Division:
    """The rows of a data set, divided: training rows and validation rows by shard, as row numbers of the data set."""

    training: tuple[Rows, ...]
    validation: tuple[Rows, ...]

    @property
    def training_rows(self) -> Rows:
        """All training rows in the data set's own order, in which statistics are computed."""
        return self._in_order(self.training)

    @property
    def validation_rows(self) -> Rows:
        """All validation rows in the data set's own order."""
        return self._in_order(self.validation)

    def _in_order(self, shards: tuple[Rows, ...]) -> Rows:
        is_among = np.zeros(sum(len(rows) for rows in (*self.training, *self.validation)), dtype=bool)
        for rows in shards:
            is_among[rows] = True
        # Quicker than sorting, and the same.
        return np.flatnonzero(is_among)


def divide(
    *, row_count: int, shard_count: int, validation_fraction: float, seed: int, fold: tuple[int, int] | None = None
) -> Division:
    """The rows 0 … row_count - 1, permuted by the seed and dealt into shards whose sizes differ by at most one.

    The first round(row_count * validation_fraction) rows of the permutation are for validation; or with a fold,
    (number, count), that one of `count` parts of the permutation.
    Raises SettingError where a shard would have no training row."""
    permutation = generator("divide", seed=seed).permutation(row_count)
    if fold is None:
        start, stop = 0, round(row_count * validation_fraction)
    else:
        number, count = fold
        start, stop = row_count * number // count, row_count * (number + 1) // count
    validation_count = stop - start
    training_count = row_count - validation_count
    if training_count < shard_count:
        raise SettingError(
            "training.shards",
            f"{shard_count} shards need at least {shard_count} training rows, but the data set has {training_count}; "
            "take fewer shards or a smaller data.validation_fraction",
        )
    # Of many rows no copy, where none is needed.
    training = np.concatenate([permutation[:start], permutation[stop:]]) if start else permutation[stop:]
    return Division(
        training=tuple(np.array_split(training, shard_count)),
        validation=tuple(np.array_split(permutation[start:stop], shard_count)),
    )


@dataclass(frozen=True)
class BatchSchedule:
    """How the steps of an epoch go through the shards.

    Every step takes `microbatch_size` rows from each shard, in the shard's own permutation for the epoch. A shard that
    has fewer left gives what it has; one that has none left takes no part."""

    seed: int
    shard_sizes: tuple[int, ...]
    microbatch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps until the largest shard is through."""
        return -(-max(self.shard_sizes) // self.microbatch_size)

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, step in the epoch), both from 0, of a step counted from 1."""
        return divmod(step - 1, self.steps_per_epoch)

    def row_count(self, shard: int, step_in_epoch: int) -> int:
        """The number of rows in a shard's microbatch; 0 where the shard has run out."""
        left = self.shard_sizes[shard] - step_in_epoch * self.microbatch_size
        return max(0, min(self.microbatch_size, left))

    def order(self, shard: int, epoch: int) -> Rows:
        """The order in which an epoch goes through a shard's rows: a permutation of 0 … size - 1."""
        return generator("epoch", seed=self.seed, words=(epoch, shard)).permutation(self.shard_sizes[shard])

    def rows(self, step_in_epoch: int) -> slice:
        """Where in an epoch's order a step's rows are."""
        start = step_in_epoch * self.microbatch_size
        return slice(start, start + self.microbatch_size)


def evaluation_blocks(row_count: int, block_size: int) -> list[slice]:
    """The blocks in which a shard is evaluated: fixed, because the rows of a block share one matrix product."""
    return [slice(start, min(start + block_size, row_count)) for start in range(0, row_count, block_size)]
