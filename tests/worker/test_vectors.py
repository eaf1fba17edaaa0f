"""How many vectors a worker holds, and that none is written while it is still on its way."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from chainrule.transport import wire
from chainrule.transport.local_link.segment import SegmentError
from chainrule.transport.wire_codec import RawPart
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.microbatch import ShardRows
from chainrule_engine.parameters import Vector
from chainrule_engine.reduction import Subtree, assign, maximal_subtrees
from chainrule_worker.assigned_job import AssignedJob
from chainrule_worker.vectors import OwnVectors, SharedVectors, WrongMessage
from tests.vector_count import counting

SIZE = wire.PART_ELEMENTS + 8


@dataclass
class SlowOutlet:
    """Copies a part's values only when it is waited for, or at the end."""

    waiting: list[RawPart] = field(default_factory=list)
    copied: list[tuple[RawPart, bytes]] = field(default_factory=list)

    def send(self, message: RawPart) -> int:
        self.waiting.append(message)
        return len(self.copied) + len(self.waiting)

    def wait_copied(self, number: int) -> None:
        while len(self.copied) < number:
            part = self.waiting.pop(0)
            self.copied.append((part, bytes(part.values)))


def assignment(*, shards: range, shard_count: int, width: int, generation: int = 1) -> pb.Assignment:
    """A job of one linear layer with `width` parameters, and two rows in each shard."""
    message = pb.Assignment(
        job_id="job",
        generation=generation,
        feature_count=2,
        first_shard=shards.start,
        shard_count=len(shards),
        shard_sizes=[2] * shard_count,
    )
    spec = message.spec
    spec.name = "job"
    spec.model.loss = "(sum(V @ x) - y)**2"
    spec.model.parameters.add(name="V", shape=[str(width // 2), "d"])
    spec.training.batch_size = shard_count
    spec.training.shards = shard_count
    spec.training.epochs = 1
    spec.training.precision = "float32"
    spec.training.backend = "numpy"
    return message


def read_shard(shard: int, is_validation: bool) -> ShardRows:
    random = np.random.default_rng(shard)
    count = 0 if is_validation else 2
    return ShardRows(
        random.normal(size=(count, 2)).astype(np.float32),
        random.normal(size=count).astype(np.float32),
        np.arange(count) + 2 * shard,
    )


def compute(held: AssignedJob, *, step: int = 1) -> list[pb.PartialSum]:
    order = pb.Order(job_id="job", generation=1, order=step, kind=pb.ORDER_KIND_GRADIENT, step=step)
    return list(held.compute(order))


@pytest.mark.parametrize("shard_count", [1, 2, 8, 64])
@pytest.mark.parametrize("worker_count", [1, 3, 5])
@pytest.mark.parametrize("width", [74, SIZE])
def test_a_worker_holds_at_most_log2_of_the_shards_and_one_gradients(
    width: int, worker_count: int, shard_count: int
) -> None:
    seen = 0
    bound = int(math.log2(shard_count)) + 1
    for shards in assign(shard_count=shard_count, worker_count=min(worker_count, shard_count)):
        with counting(width) as count:
            message = assignment(shards=shards, shard_count=shard_count, width=width)
            held = AssignedJob.accept(message, None, link=SlowOutlet())
            held.load(read_shard)
            assert isinstance(held.vectors, OwnVectors)
            held.vectors._parameters[...] = 0.01
            compute(held)
            compute(held, step=2)
            # All but the parameters.
            seen = max(seen, count() - 1)
            assert seen <= bound, (shard_count, worker_count, shards)
    if worker_count == 1:
        assert seen == bound


def test_a_worker_whose_shards_change_holds_no_more() -> None:
    held = None
    with counting(SIZE) as count:
        for generation, shards in enumerate((range(8), range(3, 6), range(1, 7), range(8)), start=1):
            message = assignment(shards=shards, shard_count=8, width=SIZE, generation=generation)
            held = AssignedJob.accept(message, held, link=SlowOutlet())
            held.load(read_shard)
            assert isinstance(held.vectors, OwnVectors)
            held.vectors._parameters[...] = 0.01
            compute(held)
            # With the parameters, and one that the plan may still remember.
            assert count() <= 4 + 2


def test_what_is_pushed_is_the_gradient_however_late_it_is_copied() -> None:
    shards = range(1, 7)
    outlet = SlowOutlet()
    held = AssignedJob.accept(assignment(shards=shards, shard_count=8, width=SIZE), None, link=outlet)
    held.load(read_shard)
    assert isinstance(held.vectors, OwnVectors)
    held.vectors._parameters[...] = 0.01
    expected: dict[tuple[int, int], Vector] = {}
    for subtree in maximal_subtrees(first=1, stop=7):
        total = held.computer.gradient(subtree, step=1, parameters=held.vectors._parameters)
        assert total is not None
        assert total.gradient is not None
        expected[subtree.first, subtree.count] = total.gradient
    answers = compute(held)
    assert [(answer.first_shard, answer.shard_count) for answer in answers] == list(expected)
    outlet.wait_copied(2 * len(expected))
    assert outlet.waiting == []
    pushed: dict[tuple[int, int], Vector] = {key: np.full(SIZE, np.nan, np.float32) for key in expected}
    for part, values in outlet.copied:
        stop = wire.part_stop(part.offset, SIZE)
        pushed[part.first_shard, part.shard_count][part.offset : stop] = np.frombuffer(values, "<f4")
    for key, gradient in expected.items():
        assert np.array_equal(pushed[key], gradient), key


def test_a_vector_is_not_written_before_it_has_been_copied() -> None:
    class Blocked(SlowOutlet):
        may_copy = threading.Event()
        asked = threading.Event()

        def wait_copied(self, number: int) -> None:
            if number:
                self.asked.set()
                assert self.may_copy.wait(60)
            super().wait_copied(number)

    outlet = Blocked()
    held = AssignedJob.accept(assignment(shards=range(1, 7), shard_count=8, width=SIZE), None, link=outlet)
    held.load(read_shard)
    assert isinstance(held.vectors, OwnVectors)
    held.vectors._parameters[...] = 0.01
    thread = threading.Thread(target=compute, args=(held,))
    thread.start()
    assert outlet.asked.wait(60)
    time.sleep(0.05)
    # Two subtrees are pushed, and the third waits for the first.
    assert {part.first_shard for part in outlet.waiting} == {1, 2}
    outlet.may_copy.set()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "part",
    [
        RawPart(4, memoryview(bytes(16))),
        RawPart(2 * wire.PART_ELEMENTS, memoryview(bytes(16))),
        RawPart(0, memoryview(bytes(16))),
        RawPart(wire.PART_ELEMENTS, memoryview(bytes(36))),
    ],
)
def test_parameters_that_do_not_fit_are_refused(part: RawPart) -> None:
    vectors = OwnVectors([Subtree(0, 1)], SIZE, SlowOutlet())
    with pytest.raises(WrongMessage, match="the parameters from element"):
        vectors.pull_part(part)


def test_a_server_s_segments_must_be_two_and_of_the_size_promised() -> None:
    shared = pb.SharedMemory(parameters_size_bytes=128, gradients_size_bytes=64)
    with pytest.raises(SegmentError, match="0 segments came"):
        SharedVectors([Subtree(0, 1)], 16, shared, ())


def test_rows_that_an_older_generation_has_read_are_kept_and_those_of_others_dropped() -> None:
    asked: list[int] = []

    def read(shard: int, is_validation: bool) -> ShardRows:
        asked.append(shard)
        return read_shard(shard, is_validation)

    first = AssignedJob.accept(assignment(shards=range(4), shard_count=8, width=64), None, link=SlowOutlet())
    first.load(read)
    assert sorted(set(asked)) == [0, 1, 2, 3]
    asked.clear()
    message = assignment(shards=range(2, 6), shard_count=8, width=64, generation=2)
    second = AssignedJob.accept(message, first, link=SlowOutlet())
    second.load(read)
    assert sorted(set(asked)) == [4, 5]
    assert sorted(second.computer.training) == [2, 3, 4, 5]
