"""How a worker's vectors come in: every part once, in its place, and for the order that asked for it."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.holding.errors import ProtocolError
from chainrule.holding.exchange import SharedExchange, StreamExchange
from chainrule.holding.parameter_memory import ParameterMemory
from chainrule.transport import wire
from chainrule.transport.wire_codec import RawPart, decode_response, encode_response
from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.precision import FLOAT32
from chainrule_engine.reduction import Subtree
from chainrule_server.data import data_set
from chainrule_server.data.data_set import DataSet
from chainrule_server.errors import WorkerFailed
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.training.training import Training, TrainingFailed
from chainrule_server.workers.worker import Worker

# Two whole parts and a short one.
SIZE = 2 * wire.PART_ELEMENTS + 8
STARTS = list(wire.part_starts(SIZE))
LEFT, RIGHT = Subtree(0, 1), Subtree(1, 1)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> PreparedJob:
    """Two shards, of 5 and 4 rows, and a vector of SIZE elements; the second step has one row, of the first shard."""
    random = np.random.default_rng(0)
    data = DataSet("test:wide", random.normal(size=(9, 8)), random.normal(size=9), tuple("abcdefgh"))
    monkeypatch.setitem(data_set.LOADERS, "test:wide", lambda: data)
    spec = job_pb2.JobSpec(name="wide")
    spec.model.loss = "(sum(V @ x) - y)**2"
    spec.model.parameters.add(name="V", shape=[str(SIZE // 8), "d"])
    spec.data.uri = "test:wide"
    spec.data.validation_fraction = 0
    spec.training.epochs = 1
    spec.training.batch_size = 8
    spec.training.shards = 2
    return prepare(spec)


def started(job: PreparedJob, *names: str) -> tuple[Training, pb.Order]:
    """A training whose workers have their first order."""
    training = Training("job", job, clock_ns=lambda: 0)
    training.set_workers([Worker(name) for name in names])
    for name in names:
        training.report_ready(name, pb.Ready(job_id="job", generation=training.generation))
    return training, order_of(training)


def order_of(training: Training) -> pb.Order:
    found = [
        message.response.order
        for message in training.outbox
        if isinstance(message.response, pb.TrainResponse) and message.response.HasField("order")
    ]
    training.outbox.clear()
    return found[-1]


def parts_sent(training: Training) -> list[tuple[str, int, int]]:
    """To whom, from which element on, and for which order."""
    found = []
    for message in training.outbox:
        response = decode_response(encode_response(message.response))
        if isinstance(response, RawPart):
            found.append((message.name, response.offset, response.order))
    return found


def part(order: pb.Order, start: int, *, shard: int, shards: int = 1, value: float = 1.0) -> RawPart:
    values = np.full(wire.part_stop(start, SIZE) - start, value, dtype="<f4")
    return RawPart(start, values.data.cast("B"), shard, shards, order.order)


def push(order: pb.Order, *, shard: int, shards: int = 1, row_count: int = 4) -> pb.PartialSum:
    return pb.PartialSum(
        job_id="job",
        generation=order.generation,
        order=order.order,
        first_shard=shard,
        shard_count=shards,
        row_count=row_count,
        sums=[1.0],
    )


def test_parts_come_in_any_order_and_the_step_is_applied_once_all_are_there(job: PreparedJob) -> None:
    training, order = started(job, "a", "b")
    before = training.state.parameters.copy()
    for start in STARTS[::-1]:
        training.push_part("a", part(order, start, shard=0))
    training.push_partial_sum("a", push(order, shard=0))
    for start in STARTS:
        training.push_part("b", part(order, start, shard=1, value=3.0))
    assert training.progress.step == 0
    assert np.array_equal(training.state.parameters, before)
    training.push_partial_sum("b", push(order, shard=1))
    assert training.progress.step == 1
    np.testing.assert_allclose(training.state.parameters, before - 0.01 * (4 / 8), rtol=1e-5, atol=1e-6)


def test_a_range_is_sent_to_every_worker_as_soon_as_all_partial_sums_are_there(job: PreparedJob) -> None:
    training, order = started(job, "a", "b")
    last = STARTS[-1]
    training.push_part("a", part(order, last, shard=0))
    assert training.outbox == []
    training.push_part("b", part(order, last, shard=1))
    assert parts_sent(training) == [("a", last, order.order + 1), ("b", last, order.order + 1)]
    training.outbox.clear()
    for name, shard in (("a", 0), ("b", 1)):
        for start in STARTS[:-1]:
            training.push_part(name, part(order, start, shard=shard))
        training.push_partial_sum(name, push(order, shard=shard))
    # Each once: what went ahead is not sent again.
    assert [offset for name, offset, _ in parts_sent(training) if name == "a"] == STARTS[:-1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (RawPart(0, memoryview(bytes(4 * wire.PART_ELEMENTS)), 1, 1), "not among the worker's subtrees"),
        (RawPart(0, memoryview(bytes(4 * wire.PART_ELEMENTS)), 0, 2), "not among the worker's subtrees"),
        (RawPart(4, memoryview(bytes(16)), 0, 1), f"no part begins at element 4 of a vector of {SIZE}"),
        (RawPart(3 * wire.PART_ELEMENTS, memoryview(bytes(16)), 0, 1), "no part begins at element 786432"),
        (RawPart(1 << 62, memoryview(bytes(16)), 0, 1), "no part begins at element"),
        (RawPart(0, memoryview(bytes(16)), 0, 1), "16 bytes for the elements 0 to 262143, not 1048576"),
        (RawPart(STARTS[-1], memoryview(bytes(36)), 0, 1), "36 bytes for the elements 524288 to 524295, not 32"),
        (RawPart(STARTS[-1], memoryview(b""), 0, 1), "0 bytes for the elements"),
    ],
)
def test_a_part_that_belongs_nowhere_is_refused_and_says_why(job: PreparedJob, wrong: RawPart, message: str) -> None:
    training, order = started(job, "a", "b")
    with pytest.raises(ProtocolError, match=message):
        training.push_part("a", wrong._replace(order=order.order))


def test_the_same_part_twice_is_refused(job: PreparedJob) -> None:
    training, order = started(job, "a", "b")
    training.push_part("a", part(order, STARTS[1], shard=0))
    with pytest.raises(ProtocolError, match="the part at element 262144 came before"):
        training.push_part("a", part(order, STARTS[1], shard=0))


def test_a_partial_sum_whose_parts_are_missing_is_refused(job: PreparedJob) -> None:
    training, order = started(job, "a", "b")
    training.push_part("a", part(order, STARTS[0], shard=0))
    training.push_part("a", part(order, STARTS[2], shard=0))
    with pytest.raises(ProtocolError, match=f"the elements from 262144 on are missing; the vector has {SIZE}"):
        training.push_partial_sum("a", push(order, shard=0))


@pytest.mark.parametrize("late", ["order", "generation", "worker"])
def test_parts_of_an_older_order_or_generation_or_of_a_worker_without_shards_are_ignored(
    job: PreparedJob, late: str
) -> None:
    training, order = started(job, "a", "b")
    if late == "order":
        training.push_part("a", part(order, STARTS[0], shard=0)._replace(order=order.order - 1))
        training.push_part("a", part(order, STARTS[0], shard=0)._replace(order=order.order + 1))
    elif late == "generation":
        training.set_workers([Worker("a"), Worker("b")])
        training.push_part("a", part(order, STARTS[0], shard=0))
        for name in ("a", "b"):
            training.report_ready(name, pb.Ready(job_id="job", generation=training.generation))
        training.push_part("a", part(order, STARTS[0], shard=0))
        order = order_of(training)
    else:
        training.push_part("c", part(order, STARTS[0], shard=0))
    # None of them counted: the part can still come.
    training.push_part("a", part(order, STARTS[0], shard=0))


def test_a_push_of_another_number_of_rows_is_refused(job: PreparedJob) -> None:
    training, order = started(job, "a", "b")
    for row_count in (0, 3, 5):
        with pytest.raises(ProtocolError, match=f"its sums are of {row_count} rows, but it has 4"):
            training.push_partial_sum("a", push(order, shard=0, row_count=row_count))


def test_a_push_that_no_order_asked_for_is_refused(job: PreparedJob) -> None:
    training = Training("job", job, clock_ns=lambda: 0)
    training.set_workers([Worker("a")])
    with pytest.raises(ProtocolError, match="no order of this generation"):
        training.push_partial_sum("a", push(pb.Order(generation=1), shard=0, shards=2, row_count=8))


def test_a_part_of_a_subtree_without_rows_is_refused(job: PreparedJob) -> None:
    training, order = started(job, "a", "b")
    for name, shard in (("a", 0), ("b", 1)):
        for start in STARTS:
            training.push_part(name, part(order, start, shard=shard))
        training.push_partial_sum(name, push(order, shard=shard))
    order = order_of(training)
    assert order.step == 2
    with pytest.raises(ProtocolError, match="no rows in step 2"):
        training.push_part("b", part(order, STARTS[0], shard=1))
    training.push_partial_sum("b", push(order, shard=1, row_count=0))
    for start in STARTS:
        training.push_part("a", part(order, start, shard=0))
    training.push_partial_sum("a", push(order, shard=0, row_count=1))
    assert training.progress.step == 2


def test_a_failure_counts_only_from_a_worker_of_this_generation(job: PreparedJob) -> None:
    training, order = started(job, "a", "b")
    training.report_failure("c", pb.Failure(generation=order.generation, message="no"))
    training.report_failure("a", pb.Failure(generation=order.generation - 1, message="no"))
    with pytest.raises(WorkerFailed, match="it burns"):
        training.report_failure("a", pb.Failure(generation=order.generation, message="it burns"))
    with pytest.raises(TrainingFailed, match="worker a: no such operation"):
        training.report_failure(
            "a", pb.Failure(generation=order.generation, message="no such operation", is_of_job=True)
        )


# In shared memory.


@pytest.fixture
def shared() -> SharedExchange:
    """Two subtrees of 100 elements."""
    return SharedExchange([LEFT, RIGHT], 100, ParameterMemory.allocate(100, share=True))


@pytest.mark.parametrize(
    "place",
    [
        pb.Place(),
        pb.Place(segment=0, offset_bytes=0, size_bytes=400),
        pb.Place(segment=1, offset_bytes=448, size_bytes=400),
        pb.Place(segment=1, offset_bytes=0, size_bytes=396),
        pb.Place(segment=1, offset_bytes=1 << 62, size_bytes=400),
    ],
)
def test_a_place_that_was_not_assigned_is_refused(shared: SharedExchange, place: pb.Place) -> None:
    with pytest.raises(ProtocolError, match="not in the place that was assigned to it"):
        shared.complete_gradient(pb.PartialSum(place=place), LEFT)


def test_each_subtree_has_a_place_of_its_own_at_a_cache_line(shared: SharedExchange) -> None:
    left = shared.complete_gradient(pb.PartialSum(place=pb.Place(segment=1, offset_bytes=0, size_bytes=400)), LEFT)
    right = shared.complete_gradient(pb.PartialSum(place=pb.Place(segment=1, offset_bytes=448, size_bytes=400)), RIGHT)
    assert not np.may_share_memory(left, right)
    assert left.ctypes.data % 64 == right.ctypes.data % 64 == 0


def test_a_part_where_memory_is_shared_is_refused(shared: SharedExchange) -> None:
    with pytest.raises(ProtocolError, match="where memory is shared"):
        shared.decode_part(RawPart(0, memoryview(bytes(400)), 0, 1))


def test_a_place_where_parts_were_asked_for_is_refused() -> None:
    stream = StreamExchange([LEFT], 100, FLOAT32)
    stream.order_messages(pb.Order(), None, is_next=False)
    with pytest.raises(ProtocolError, match="the elements from 0 on are missing"):
        stream.complete_gradient(pb.PartialSum(place=pb.Place(segment=1, size_bytes=400)), LEFT)
