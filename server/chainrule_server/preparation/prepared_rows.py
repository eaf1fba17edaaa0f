"""The rows of a job as they are trained with, one shard after the other: a shard is a stretch of memory, not a copy.

The data are read in their own order, a block of rows at a time. In a server the prepared rows go to a file of its home,
which it and the workers on its machine map; elsewhere they are in memory. Beside them there is never more than a window
of them, and three numbers for each row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.transport.local_link.segment import Segment
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.microbatch import ShardRows
from chainrule_engine.sharding import Division
from chainrule_server.data.columns import Rows
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.data_set import data_errors
from chainrule_server.preparation.preprocessing import Preprocessing
from chainrule_server.preparation.row_file import RowFile, RowFolder, RowWriter

# Fewer bytes are sent sooner than they are mapped.
SHARED_BYTES = 16 << 20
ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class Arrays:
    """features: (rows, d) float32. targets: (rows,) float32, or int64 classes. numbers: of each row in the data set."""

    features: NDArray[np.float32]
    targets: NDArray[Any]
    numbers: NDArray[np.int64]


@dataclass(frozen=True)
class PreparedRows:
    """Training rows shard after shard, then validation rows so. sizes: of the shards of both.

    sha256: of the rows in the data set's own order, and of what they are called. file: where they are, which nobody
    looks into before the first row is wanted; None: in memory, in `own`."""

    width: int
    target_type: np.dtype[Any]
    training_sizes: tuple[int, ...]
    validation_sizes: tuple[int, ...]
    sha256: str
    file: RowFile | None = None
    own: Arrays | None = None

    @property
    def row_count(self) -> int:
        """The number of all rows."""
        return sum(self.training_sizes) + sum(self.validation_sizes)

    @property
    def features(self) -> NDArray[np.float32]:
        """(rows, d)."""
        return self._arrays.features

    @property
    def targets(self) -> NDArray[Any]:
        """(rows,)."""
        return self._arrays.targets

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(rows,)."""
        return self._arrays.numbers

    @property
    def division(self) -> Division:
        """Which rows of the data set are in which shard."""
        training, validation = self._stretches
        return Division(
            tuple(self.numbers[each] for each in training), tuple(self.numbers[each] for each in validation)
        )

    def shard(self, number: int, *, validation: bool) -> ShardRows:
        """The rows of one shard: views."""
        stretch = self._stretches[validation][number]
        return ShardRows(self.features[stretch], self.targets[stretch], self.numbers[stretch])

    def describe_memory(self, assignment: pb.Assignment) -> tuple[int, ...]:
        """Describe the rows in the assignment of a worker that shares memory; the descriptor that goes with it."""
        if self.file is None or self.file.size_bytes < SHARED_BYTES:
            return ()
        targets_at, numbers_at, _ = self.ends
        assignment.shared_memory.rows.size_bytes = self.file.size_bytes
        assignment.shared_memory.rows.targets_offset_bytes = targets_at
        assignment.shared_memory.rows.numbers_offset_bytes = numbers_at
        assignment.shared_memory.rows.validation_shard_sizes.extend(self.validation_sizes)
        return (self._segment.descriptor,)

    def row(self, number: int) -> tuple[NDArray[np.float32], Any]:
        """Features and target of the row with that number in the data set, which counts from 0."""
        (place,) = np.flatnonzero(self.numbers == number)
        return self.features[place], self.targets[place]

    def in_data_order(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """(features, targets) in the data set's own order: copies."""
        places = np.argsort(self.numbers)
        return self.features[places], self.targets[places]

    @cached_property
    def _segment(self) -> Segment:
        if self.file is None:
            raise TypeError("these rows are in no file")
        return self.file.segment()

    @cached_property
    def _arrays(self) -> Arrays:
        if self.own is not None:
            return self.own
        (targets_at, numbers_at, _), count = self.ends, self.row_count
        return Arrays(
            self._segment.array(0, (count, self.width), np.dtype(np.float32)),
            self._segment.array(targets_at, (count,), self.target_type),
            self._segment.array(numbers_at, (count,), np.dtype(np.int64)),
        )

    @property
    def ends(self) -> list[int]:
        """Where features, targets and numbers end in a file, each aligned."""
        return _ends(4 * self.width * self.row_count, self.target_type.itemsize * self.row_count, 8 * self.row_count)

    @cached_property
    def _stretches(self) -> tuple[list[slice], list[slice]]:
        """Where the shards lie: of training rows, and of validation rows."""
        training = _stretches(self.training_sizes, 0)
        return training, _stretches(self.validation_sizes, training[-1].stop)


def lay_out(
    data: Rows, preprocessing: Preprocessing, division: Division, *, folder: RowFolder | None = None
) -> PreparedRows:
    """The prepared rows of a data set, in a file of `folder`, or in memory where there is none.

    Raises DataError where a value leaves the range of float32, StorageFull."""
    with data_errors(data.uri):
        targets = preprocessing.targets(data)
    numbers = np.concatenate([*division.training, *division.validation])
    place_of = np.empty(len(numbers), dtype=np.int64)
    place_of[numbers] = np.arange(len(numbers))
    rows = PreparedRows(
        preprocessing.width,
        targets.dtype,
        tuple(len(each) for each in division.training),
        tuple(len(each) for each in division.validation),
        sha256="",
    )
    blocks = _Blocks(data, preprocessing, targets)
    if folder is None:
        features = np.empty((rows.row_count, rows.width), np.float32)
        for start, block in blocks:
            features[place_of[start : start + len(block)]] = block
        return replace(rows, sha256=blocks.sha256, own=Arrays(features, targets[numbers], numbers))
    with folder.writing() as file:
        with RowWriter(file, place_of, 4 * rows.width) as writer:
            for start, block in blocks:
                writer.put(start, block)
            writer.finish()
        targets_at, numbers_at, end = rows.ends
        file.put(targets_at, targets[numbers])
        file.put(numbers_at, numbers)
        file.cut(end)
        key = hashlib.sha256(f"{blocks.sha256} {rows.training_sizes} {rows.validation_sizes} ".encode())
        key.update(numbers.data)
        return replace(rows, sha256=blocks.sha256, file=folder.keep(file, key.hexdigest()))


class _Blocks:
    """The prepared features of a data set, in its order, as (number of the first row, rows); hashed on the way.

    sha256: of all of them, and of the targets, once they have come."""

    def __init__(self, data: Rows, preprocessing: Preprocessing, targets: NDArray[Any]) -> None:
        self.sha256 = ""
        self._data = data
        self._preprocessing = preprocessing
        self._targets = targets

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Raises DataError where there are not as many rows as targets, or one leaves the range of float32."""
        digest = hashlib.sha256(self._preprocessing.to_json().encode())
        row_count = len(self._targets)
        digest.update(f"\0<f4\0{(row_count, self._preprocessing.width)}\0".encode())
        hashed: Future[None] | None = None
        start = 0
        with data_errors(self._data.uri), ThreadPoolExecutor(1) as pool:
            for block in self._preprocessing.blocks(self._data):
                stop = start + len(block)
                if stop > row_count:
                    break
                if hashed is not None:
                    hashed.result()
                hashed = pool.submit(digest.update, block.data.cast("B"))
                yield start, block
                start = stop
            if start != row_count:
                raise DataFileError(f"the features have not {row_count} rows, as the target has; is it being written?")
        digest.update(f"\0{self._targets.dtype.str}\0{self._targets.shape}\0".encode())
        digest.update(self._targets.data.cast("B"))
        self.sha256 = digest.hexdigest()


def _ends(*sizes_bytes: int) -> list[int]:
    """Where each array ends, aligned, that lies behind the others in a file."""
    return list(accumulate(-(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for size_bytes in sizes_bytes))


def _stretches(sizes: Sequence[int], start: int) -> list[slice]:
    ends = np.cumsum([start, *sizes]).tolist()
    return [slice(begin, end) for begin, end in pairwise(ends)]
