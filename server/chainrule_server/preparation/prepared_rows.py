"""The rows of a job as they are trained with, one shard after the other: a shard is a stretch of memory, not a copy.

The data are read in their own order, a block of rows at a time, and each row goes to its place at once. So beside the
prepared rows there is never more than a block. Many rows lie in a segment that workers on this machine map as well.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.process.logs import log_event
from chainrule.transport.local_link.segment import Segment, SegmentError
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.microbatch import ShardRows
from chainrule_engine.sharding import Division
from chainrule_server.data.columns import Rows
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.data_set import data_errors
from chainrule_server.preparation.preprocessing import Preprocessing

log = logging.getLogger(__name__)
# Fewer bytes are sent sooner than they are mapped.
SHARED_BYTES = 16 << 20
ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class PreparedRows:
    """features: (rows, d) float32. targets: (rows,) float32, or int64 classes. Both in the order of `division`.

    division: its row numbers in the data set lie one after the other too. sha256: of the rows in the data set's own
    order, and of what they are called. segment: where all of this lies, for workers to map; None: in memory of our own.
    """

    features: NDArray[np.float32]
    targets: NDArray[Any]
    numbers: NDArray[np.int64]
    division: Division
    sha256: str
    segment: Segment | None = None

    def shard(self, number: int, *, validation: bool) -> ShardRows:
        """The rows of one shard: views."""
        stretch = self._stretches[validation][number]
        return ShardRows(self.features[stretch], self.targets[stretch], self.numbers[stretch])

    def share(self, assignment: pb.Assignment) -> tuple[int, ...]:
        """Describe the rows in the assignment of a worker that shares memory; the descriptor that goes with it."""
        if self.segment is None:
            return ()
        targets_at, numbers_at = _ends(self.features.nbytes, self.targets.nbytes)
        assignment.shared_memory.rows.size_bytes = self.segment.size_bytes
        assignment.shared_memory.rows.targets_offset_bytes = targets_at
        assignment.shared_memory.rows.numbers_offset_bytes = numbers_at
        assignment.shared_memory.rows.validation_shard_sizes.extend(len(rows) for rows in self.division.validation)
        return (self.segment.descriptor,)

    def row(self, number: int) -> tuple[NDArray[np.float32], Any]:
        """Features and target of the row with that number in the data set, which counts from 0."""
        (place,) = np.flatnonzero(self.numbers == number)
        return self.features[place], self.targets[place]

    def in_data_order(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """(features, targets) in the data set's own order: copies."""
        places = np.argsort(self.numbers)
        return self.features[places], self.targets[places]

    @cached_property
    def _stretches(self) -> tuple[list[slice], list[slice]]:
        """Where the shards lie: of training rows, and of validation rows."""
        training = _stretches(self.division.training, 0)
        return training, _stretches(self.division.validation, training[-1].stop)


def lay_out(data: Rows, preprocessing: Preprocessing, division: Division) -> PreparedRows:
    """The prepared rows of a data set. Raises DataError where a value leaves the range of float32."""
    row_count, width = len(data.target), preprocessing.width
    with data_errors(data.uri):
        targets = preprocessing.targets(data)
    features, sorted_targets, numbers, segment = _memory(row_count, width, targets.dtype)
    np.concatenate([*division.training, *division.validation], out=numbers)
    place_of = np.empty(row_count, dtype=np.int64)
    place_of[numbers] = np.arange(row_count)
    digest = hashlib.sha256(preprocessing.to_json().encode())
    digest.update(f"\0<f4\0{(row_count, width)}\0".encode())
    # As one element for each row: numpy copies a row at once.
    row_type = np.dtype((np.void, 4 * width))
    rows = features.view(row_type)[:, 0]
    hashed: Future[None] | None = None
    start = 0
    with data_errors(data.uri), ThreadPoolExecutor(1) as pool:
        for block in preprocessing.blocks(data):
            stop = start + len(block)
            if stop > row_count:
                break
            if hashed is not None:
                hashed.result()
            hashed = pool.submit(digest.update, block.data.cast("B"))
            rows[place_of[start:stop]] = block.view(row_type)[:, 0]
            start = stop
        if start != row_count:
            raise DataFileError(f"the features have not {row_count} rows, as the target has; is it being written?")
    digest.update(f"\0{targets.dtype.str}\0{targets.shape}\0".encode())
    digest.update(targets.data.cast("B"))
    np.take(targets, numbers, out=sorted_targets)
    shards = _views(numbers, [*division.training, *division.validation])
    in_place = Division(shards[: len(division.training)], shards[len(division.training) :])
    return PreparedRows(features, sorted_targets, numbers, in_place, digest.hexdigest(), segment)


def _memory(
    row_count: int, width: int, target_type: np.dtype[Any]
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.int64], Segment | None]:
    """Room for features, targets and row numbers, in a segment where they are many."""
    float32, int64 = np.dtype(np.float32), np.dtype(np.int64)
    kinds: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...] = (
        ((row_count, width), float32),
        ((row_count,), target_type),
        ((row_count,), int64),
    )
    ends = _ends(*(math.prod(shape) * kind.itemsize for shape, kind in kinds))
    segment = None
    if ends[-1] >= SHARED_BYTES:
        try:
            segment = Segment.create(ends[-1], name="chainrule-rows")
            segment.seal_read_only()
        except SegmentError as error:
            extra = log_event("no_shared_memory")
            log.warning("the rows can't be in shared memory, so they go over gRPC: %s", error, extra=extra)
            segment = None
    if segment is None:
        features, targets, numbers = (np.empty(shape, dtype=kind) for shape, kind in kinds)
    else:
        places = zip((0, *ends), kinds, strict=False)
        features, targets, numbers = (segment.array(start, shape, kind) for start, (shape, kind) in places)
    return features, targets, numbers, segment


def _ends(*sizes_bytes: int) -> list[int]:
    """Where each array ends, aligned, that lies behind the others in a segment."""
    return list(accumulate(-(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for size_bytes in sizes_bytes))


def _stretches(shards: Sequence[NDArray[np.int64]], start: int) -> list[slice]:
    ends = np.cumsum([start, *(len(rows) for rows in shards)]).tolist()
    return [slice(begin, end) for begin, end in pairwise(ends)]


def _views(numbers: NDArray[np.int64], shards: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], ...]:
    return tuple(numbers[stretch] for stretch in _stretches(shards, 0))
