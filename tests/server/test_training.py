"""The server's program, driven without sockets: what counts, what is ignored, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from server import data_set
from server.data_set import DataSet
from server.errors import ProtocolError
from server.lease import Lease
from server.prepared_job import PreparedJob, prepare
from server.team import Seat
from server.training import Training, TrainingFailed


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> PreparedJob:
    random = np.random.default_rng(0)
    data = DataSet("test:linear", random.normal(size=(40, 3)), random.normal(size=40), ("a", "b", "c"))
    monkeypatch.setitem(data_set.LOADERS, "test:linear", lambda: data)
    spec = job_pb2.JobSpec(name="linear")
    spec.model.loss = "(w @ x - y)**2"
    spec.model.parameters.add(name="w", shape=["d"])
    spec.data.uri = "test:linear"
    spec.data.validation_fraction = 0
    spec.training.epochs = 1
    spec.training.batch_size = 8
    spec.training.shards = 2
    return prepare(spec)


def started(job: PreparedJob, *names: str) -> Training:
    training = Training("job", job, clock_ns=lambda: 0)
    training.set_workers([Seat(name) for name in names])
    for name in names:
        training.ready(name, pb.Ready(job_id="job", generation=training.generation))
    return training


def orders(training: Training) -> list[tuple[str, pb.Order]]:
    found = []
    for message in training.outbox:
        assert isinstance(message.response, pb.TrainResponse)
        if message.response.HasField("order"):
            found.append((message.name, message.response.order))
    training.outbox.clear()
    return found


def push(order: pb.Order, *, shard: int, value: float = 1.0, shards: int = 1) -> pb.PartialSum:
    return pb.PartialSum(
        job_id="job",
        generation=order.generation,
        order=order.order,
        first_shard=shard,
        shard_count=shards,
        row_count=4 * shards,
        sums=[1.0],
        vector=pb.VectorPart(values=np.full(3, value, "<f4").tobytes()),
    )


def test_nothing_is_ordered_before_every_worker_is_ready(job: PreparedJob) -> None:
    training = Training("job", job, clock_ns=lambda: 0)
    training.set_workers([Seat("a"), Seat("b")])
    training.ready("a", pb.Ready(job_id="job", generation=1))
    assert orders(training) == []
    assert training.waiting is not None
    assert training.waiting.words == "b to load shards"
    training.ready("b", pb.Ready(job_id="job", generation=1))
    assert [name for name, _ in orders(training)] == ["a", "b"]


def test_a_step_is_applied_once_all_partial_sums_are_there_and_not_before(job: PreparedJob) -> None:
    training = started(job, "a", "b")
    (_, order), _ = orders(training)
    before = training.state.parameters.copy()
    training.receive("a", push(order, shard=0))
    assert np.array_equal(training.state.parameters, before)
    assert training.waiting is None
    training.clock_ns = lambda: 2_500_000_000
    assert training.waiting is not None
    assert training.waiting.words == "partial sums of step 1 from b, for 2.5 s"
    training.receive("b", push(order, shard=1, value=3.0))
    assert training.progress.step == 1
    np.testing.assert_allclose(training.state.parameters, before - 0.01 * (4 / 8), rtol=1e-6)


def test_a_repeated_push_counts_once(job: PreparedJob) -> None:
    training = started(job, "a", "b")
    (_, order), _ = orders(training)
    training.receive("a", push(order, shard=0))
    training.receive("a", push(order, shard=0, value=100.0))
    assert training.progress.step == 0
    before = training.state.parameters.copy()
    training.receive("b", push(order, shard=1))
    np.testing.assert_allclose(training.state.parameters, before - 0.01 * (2 / 8), rtol=1e-6)


def test_a_late_push_of_a_step_before_is_ignored(job: PreparedJob) -> None:
    training = started(job, "a")
    ((_, first),) = orders(training)
    training.receive("a", push(first, shard=0, shards=2))
    assert training.progress.step == 1
    after = training.state.parameters.copy()
    training.receive("a", push(first, shard=0, shards=2, value=100.0))
    assert training.progress.step == 1
    assert np.array_equal(training.state.parameters, after)


def test_a_push_of_an_older_generation_is_ignored_and_the_step_is_ordered_again(job: PreparedJob) -> None:
    training = started(job, "a", "b")
    (_, order), _ = orders(training)
    training.receive("a", push(order, shard=0))
    training.set_workers([Seat("b")])
    training.ready("b", pb.Ready(job_id="job", generation=training.generation))
    training.receive("b", push(order, shard=1))
    assert training.progress.step == 0
    ((_, again),) = orders(training)
    assert (again.step, again.generation) == (order.step, order.generation + 1)
    training.receive("b", push(again, shard=0, shards=2))
    assert training.progress.step == 1


def test_without_workers_the_training_waits_and_says_so(job: PreparedJob) -> None:
    training = started(job, "a")
    training.set_workers([])
    assert training.waiting is not None
    assert training.waiting.words == "workers: none is connected; the job goes on with the first that joins"


@pytest.mark.parametrize("length", [0, 2, 4])
def test_a_gradient_of_another_length_is_refused(job: PreparedJob, length: int) -> None:
    training = started(job, "a")
    ((_, order),) = orders(training)
    message = push(order, shard=0, shards=2)
    message.vector.values = bytes(4 * length)
    with pytest.raises(ProtocolError, match="refused"):
        training.receive("a", message)


def test_a_push_for_the_shards_of_another_worker_is_refused(job: PreparedJob) -> None:
    training = started(job, "a", "b")
    (_, order), _ = orders(training)
    with pytest.raises(ProtocolError, match="not its own"):
        training.receive("a", push(order, shard=1))


def test_parameters_that_would_not_be_finite_fail_the_job_and_the_last_good_ones_are_kept(job: PreparedJob) -> None:
    training = started(job, "a")
    ((_, order),) = orders(training)
    before = training.state.parameters.copy()
    training.receive("a", push(order, shard=0, shards=2, value=float("inf")))
    assert np.array_equal(training.state.parameters, before)
    # The step is given again, for the worker to find out which shard it comes from; it finds none.
    ((_, again),) = orders(training)
    assert (order.checks_gradients, again.checks_gradients) == (False, True)
    assert again.step == order.step == 1
    assert again.HasField("vector")
    with pytest.raises(TrainingFailed, match=r"step 1: .* last good ones are those of step 0"):
        training.receive("a", push(again, shard=0, shards=2, value=float("inf")))
    assert np.array_equal(training.state.parameters, before)


def test_a_bad_row_is_named_with_step_and_shard(job: PreparedJob) -> None:
    training = started(job, "a")
    ((_, order),) = orders(training)
    message = push(order, shard=0, shards=2)
    message.not_finite.CopyFrom(pb.NotFinite(shard=1, row=17))
    with pytest.raises(TrainingFailed, match=r"step 1: the loss of row 17 is not finite \(shard 1\)"):
        training.receive("a", message)


def test_a_worker_that_is_late_with_a_step_loses_its_shards_in_mid_step_and_its_push_counts_nowhere(
    job: PreparedJob,
) -> None:
    training = started(job, "a", "late")
    (_, order), _ = orders(training)
    before = training.state.parameters.copy()
    training.clock_ns = lambda: 10_000_000
    training.receive("a", push(order, shard=0))
    training.clock_ns = lambda: 1_900_000_000
    assert not training.look_after()
    training.clock_ns = lambda: 2_200_000_000
    assert training.look_after()
    training.set_workers([Seat("a"), Seat("late")])
    assert training.workers == ["a"]
    assert [event.shards_moved.slow_worker for event in training.roster.events] == ["late"]
    # It still owes an answer, so it may still be found to hang.
    assert training.owes("late") == (True, False)
    training.ready("a", pb.Ready(job_id="job", generation=training.generation))
    ((name, again),) = orders(training)
    assert (name, again.step) == ("a", 1)
    training.receive("late", push(order, shard=1, value=100.0))
    assert training.owes("late") == (False, False)
    assert training.progress.step == 0
    training.receive("a", push(again, shard=0, shards=2))
    assert training.progress.step == 1
    np.testing.assert_allclose(training.state.parameters, before - 0.01 * (1 / 8), rtol=1e-6)


def test_a_late_worker_that_is_silent_keeps_its_shards_until_its_lease_ends(job: PreparedJob) -> None:
    training = started(job, "a", "silent")
    (_, order), _ = orders(training)
    lease = Lease(10.0, 0.0, silent_s=2.0)
    training.lease_of = {"silent": lease}.get
    training.clock_ns = lambda: 10_000_000
    training.receive("a", push(order, shard=0))
    training.clock_ns = lambda: 5_000_000_000
    assert not training.look_after()
