"""The server's program, driven without sockets: what counts, what is ignored, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.holding.errors import ProtocolError
from chainrule.holding.lease import Lease
from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_server.data import data_set
from chainrule_server.data.data_set import DataSet
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.training.result import TrainingFailed
from chainrule_server.training.training import Training
from chainrule_server.workers.worker import Worker


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
    training.set_workers([Worker(name) for name in names])
    for name in names:
        training.report_ready(name, pb.Ready(job_id="job", generation=training.generation))
    return training


def set_clock(training: Training, now_ns: int) -> None:
    training.clock_ns = training._orders.clock_ns = lambda: now_ns


def orders(training: Training) -> list[tuple[str, pb.Order]]:
    found = []
    for message in training.outbox:
        assert isinstance(message.response, pb.TrainResponse)
        if message.response.HasField("order"):
            found.append((message.name, message.response.order))
    training.outbox.clear()
    return found


def push(order: pb.Order, *, shard: int, value: float = 1.0, shards: int = 1, rows: int = 4) -> pb.PartialSum:
    return pb.PartialSum(
        job_id="job",
        generation=order.generation,
        order=order.order,
        first_shard=shard,
        shard_count=shards,
        row_count=rows * shards,
        sums=[1.0],
        vector=pb.VectorPart(values=np.full(3, value, "<f4").tobytes()),
    )


def test_nothing_is_ordered_before_every_worker_is_ready(job: PreparedJob) -> None:
    training = Training("job", job, clock_ns=lambda: 0)
    training.set_workers([Worker("a"), Worker("b")])
    training.report_ready("a", pb.Ready(job_id="job", generation=1))
    assert orders(training) == []
    assert training.waiting is not None
    assert training.waiting.words == "b to load shards"
    training.report_ready("b", pb.Ready(job_id="job", generation=1))
    assert [name for name, _ in orders(training)] == ["a", "b"]


def test_before_it_has_been_given_workers_a_job_waits_for_the_first(job: PreparedJob) -> None:
    waiting = Training("job", job, clock_ns=lambda: 0).waiting
    assert waiting is not None
    assert "none is connected" in waiting.words


def test_a_step_is_applied_once_all_partial_sums_are_there_and_not_before(job: PreparedJob) -> None:
    training = started(job, "a", "b")
    (_, order), _ = orders(training)
    before = training.state.parameters.copy()
    training.push_partial_sum("a", push(order, shard=0))
    assert np.array_equal(training.state.parameters, before)
    assert training.waiting is None
    set_clock(training, 2_500_000_000)
    assert training.waiting is not None
    assert training.waiting.words == "partial sums of step 1 from b, for 2.5 s"
    training.push_partial_sum("b", push(order, shard=1, value=3.0))
    assert training.progress.step == 1
    np.testing.assert_allclose(training.state.parameters, before - 0.01 * (4 / 8), rtol=1e-6)


def test_a_repeated_push_counts_once(job: PreparedJob) -> None:
    training = started(job, "a", "b")
    (_, order), _ = orders(training)
    training.push_partial_sum("a", push(order, shard=0))
    training.push_partial_sum("a", push(order, shard=0, value=100.0))
    assert training.progress.step == 0
    before = training.state.parameters.copy()
    training.push_partial_sum("b", push(order, shard=1))
    np.testing.assert_allclose(training.state.parameters, before - 0.01 * (2 / 8), rtol=1e-6)


def test_a_late_push_of_a_step_before_is_ignored(job: PreparedJob) -> None:
    training = started(job, "a")
    ((_, first),) = orders(training)
    training.push_partial_sum("a", push(first, shard=0, shards=2))
    assert training.progress.step == 1
    after = training.state.parameters.copy()
    training.push_partial_sum("a", push(first, shard=0, shards=2, value=100.0))
    assert training.progress.step == 1
    assert np.array_equal(training.state.parameters, after)


def test_a_push_of_an_older_generation_is_ignored_and_the_step_is_ordered_again(job: PreparedJob) -> None:
    training = started(job, "a", "b")
    (_, order), _ = orders(training)
    training.push_partial_sum("a", push(order, shard=0))
    training.set_workers([Worker("b")])
    training.report_ready("b", pb.Ready(job_id="job", generation=training.generation))
    training.push_partial_sum("b", push(order, shard=1))
    assert training.progress.step == 0
    ((_, again),) = orders(training)
    assert (again.step, again.generation) == (order.step, order.generation + 1)
    training.push_partial_sum("b", push(again, shard=0, shards=2))
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
        training.push_partial_sum("a", message)


def test_a_push_for_the_shards_of_another_worker_is_refused(job: PreparedJob) -> None:
    training = started(job, "a", "b")
    (_, order), _ = orders(training)
    with pytest.raises(ProtocolError, match="not its own"):
        training.push_partial_sum("a", push(order, shard=1))


def test_parameters_that_would_not_be_finite_fail_the_job_and_the_last_good_ones_are_kept(job: PreparedJob) -> None:
    training = started(job, "a")
    ((_, order),) = orders(training)
    before = training.state.parameters.copy()
    training.push_partial_sum("a", push(order, shard=0, shards=2, value=float("inf")))
    assert np.array_equal(training.state.parameters, before)
    # The step is given again, for the worker to find out which shard it comes from; it finds none.
    ((_, again),) = orders(training)
    assert (order.checks_gradients, again.checks_gradients) == (False, True)
    assert again.step == order.step == 1
    assert again.HasField("vector")
    with pytest.raises(TrainingFailed, match=r"step 1: .* last good ones are those of step 0"):
        training.push_partial_sum("a", push(again, shard=0, shards=2, value=float("inf")))
    assert np.array_equal(training.state.parameters, before)


def test_a_bad_row_is_named_with_step_and_shard(job: PreparedJob) -> None:
    training = started(job, "a")
    ((_, order),) = orders(training)
    message = push(order, shard=0, shards=2)
    message.not_finite.CopyFrom(pb.NotFinite(shard=1, row=17))
    with pytest.raises(TrainingFailed, match=r"step 1: the loss of row 17 is not finite \(shard 1\)"):
        training.push_partial_sum("a", message)


def helps(training: Training) -> list[tuple[str, pb.Help]]:
    found = [(each.name, each.response.help) for each in training.outbox if isinstance(each.response, pb.TrainResponse)]
    training.outbox.clear()
    return [(name, asked) for name, asked in found if asked.HasField("order")]


def with_a_late_worker(job: PreparedJob) -> tuple[Training, pb.Order]:
    """A training with its first order, which "a" has answered for shard 0, and for shard 1 is asked for help with."""
    training = started(job, "a", "late")
    (_, order), _ = orders(training)
    set_clock(training, 10_000_000)
    training.push_partial_sum("a", push(order, shard=0))
    set_clock(training, 250_000_000)
    assert not training.relieve_stragglers()
    return training, order


def test_what_a_worker_is_late_with_is_computed_by_another_too_and_its_own_push_counts_nowhere_then(
    job: PreparedJob,
) -> None:
    training, order = with_a_late_worker(job)
    before = training.state.parameters.copy()
    ((name, asked),) = helps(training)
    assert (name, asked.assignment.first_shard, asked.assignment.shard_count) == ("a", 1, 1)
    assert (asked.order.step, asked.order.order, asked.order.HasField("vector")) == (1, order.order, False)
    (event,) = training.roster.events
    assert (event.late_worker_helped.late_worker, list(event.late_worker_helped.helpers)) == ("late", ["a"])
    assert training.may_read("a", 1)
    assert not training.may_read("late", 0)
    training.push_partial_sum("a", push(order, shard=1, value=3.0))
    assert training.progress.step == 1
    after = training.state.parameters.copy()
    np.testing.assert_allclose(after, before - 0.01 * (4 / 8), rtol=1e-6)
    # The next order goes to whoever is there, with the part of the one that is behind.
    sent = [each.response for each in training.outbox if isinstance(each.response, pb.TrainResponse)]
    assert [(each.WhichOneof("message"), training.outbox[0].name) for each in sent] == [("order", "a"), ("help", "a")]
    training.outbox.clear()
    training.push_partial_sum("late", push(order, shard=1, value=100.0))
    assert np.array_equal(training.state.parameters, after)
    assert training.owes("late") == (False, False)
    # It is there again: the order after this one goes to both, with all parameters for the one that missed some.
    training.push_partial_sum("a", push(sent[0].order, shard=0))
    training.push_partial_sum("a", push(sent[0].order, shard=1))
    assert [(name, each.step, each.HasField("vector")) for name, each in orders(training)] == [
        ("a", 3, True),
        ("late", 3, True),
    ]


def test_where_the_late_worker_is_first_the_helpers_push_counts_nowhere(job: PreparedJob) -> None:
    training, order = with_a_late_worker(job)
    before = training.state.parameters.copy()
    training.push_partial_sum("late", push(order, shard=1, value=3.0))
    training.push_partial_sum("a", push(order, shard=1, value=100.0))
    assert training.progress.step == 1
    np.testing.assert_allclose(training.state.parameters, before - 0.01 * (4 / 8), rtol=1e-6)
    assert len(orders(training)) == 2


def test_who_was_not_asked_for_help_may_not_push_the_shards_of_others(job: PreparedJob) -> None:
    training = started(job, "a", "b", "late")
    given = dict(orders(training))
    assert training.workers == ["a", "b"]
    with pytest.raises(ProtocolError, match="not its own"):
        training.push_partial_sum("b", push(given["b"], shard=0))


def test_who_has_just_caught_up_is_not_asked_for_help_because_it_lacks_the_parameters(job: PreparedJob) -> None:
    job.spec.training.shards = 4
    training = started(prepare(job.spec), "late", "b", "c")  # with the shards 0 and 1, 2, 3
    first = orders(training)[0][1]
    set_clock(training, 10_000_000)
    training.push_partial_sum("b", push(first, shard=2, rows=2))
    training.push_partial_sum("c", push(first, shard=3, rows=2))
    set_clock(training, 250_000_000)
    training.relieve_stragglers()
    ((helper, _),) = helps(training)
    training.push_partial_sum(helper, push(first, shard=0, shards=2, rows=2))
    second = orders(training)[0][1]
    assert second.step == 2
    training.push_partial_sum("late", push(first, shard=0, shards=2, rows=2))
    assert training.owes("late") == (False, False)
    set_clock(training, 260_000_000)
    training.push_partial_sum("c", push(second, shard=3, rows=2))
    set_clock(training, 900_000_000)
    assert not training.relieve_stragglers()
    assert [name for name, _ in helps(training)] == ["c"]


def test_where_nobody_can_help_the_late_worker_is_waited_for_and_given_the_next_order(job: PreparedJob) -> None:
    training, order = with_a_late_worker(job)
    training.push_partial_sum("a", push(order, shard=1))
    ((_, second),) = orders(training)
    failure = pb.Failure(job_id="job", generation=training.generation, message="no room", is_of_help=True)
    training.report_failure("a", failure)
    training.push_partial_sum("a", push(second, shard=0))
    assert training.progress.step == 1
    assert orders(training) == []
    training.push_partial_sum("late", push(order, shard=1))
    ((name, again),) = orders(training)
    assert (name, again.step) == ("late", 2)
    training.push_partial_sum("late", push(again, shard=1))
    assert training.progress.step == 2


def test_shards_move_away_from_a_worker_that_stays_behind(job: PreparedJob) -> None:
    training, order = with_a_late_worker(job)
    training.push_partial_sum("a", push(order, shard=1))
    ((_, second),) = orders(training)
    set_clock(training, 260_000_000)
    training.push_partial_sum("a", push(second, shard=0))
    set_clock(training, 1_900_000_000)
    assert not training.relieve_stragglers()
    set_clock(training, 2_200_000_000)
    assert training.relieve_stragglers()
    training.set_workers([Worker("a"), Worker("late")])
    assert training.workers == ["a"]
    assert [event.WhichOneof("event") for event in training.roster.events] == ["late_worker_helped", "shards_moved"]
    # It still owes an answer, so it may still be found to hang.
    assert training.owes("late") == (True, False)
    training.report_ready("a", pb.Ready(job_id="job", generation=training.generation))
    ((name, again),) = orders(training)
    assert (name, again.step) == ("a", 2)
    training.push_partial_sum("late", push(order, shard=1, value=100.0))
    assert training.owes("late") == (False, False)
    assert training.progress.step == 1


def test_a_silent_worker_is_helped_but_keeps_its_shards_until_its_lease_ends(job: PreparedJob) -> None:
    training = started(job, "a", "silent")
    (_, order), _ = orders(training)
    lease = Lease(10.0, 0.0, silent_s=2.0)
    training.lease_of = {"silent": lease}.get
    set_clock(training, 10_000_000)
    training.push_partial_sum("a", push(order, shard=0))
    set_clock(training, 5_000_000_000)
    assert not training.relieve_stragglers()
    assert [name for name, _ in helps(training)] == ["a"]


def test_an_evaluation_that_a_worker_is_late_with_tells_nothing_of_its_speed(job: PreparedJob) -> None:
    job.spec.data.validation_fraction = 0.2
    job.spec.training.epochs, job.spec.training.batch_size = 2, 32
    training = started(prepare(job.spec), "a", "late")
    step, _ = (order for _, order in orders(training))
    set_clock(training, 10_000_000)
    for shard, name in enumerate(("a", "late")):
        training.push_partial_sum(name, push(step, shard=shard, rows=16))
    rows_per_second = training.rows_per_second("late")
    evaluation, _ = (order for _, order in orders(training))
    assert evaluation.kind == pb.ORDER_KIND_EVALUATE_VALIDATION
    set_clock(training, 20_000_000)
    training.push_partial_sum("a", push(evaluation, shard=0))
    set_clock(training, 500_000_000)
    assert not training.relieve_stragglers()
    training.push_partial_sum("a", push(evaluation, shard=1))
    assert orders(training)[0][1].kind == pb.ORDER_KIND_GRADIENT
    set_clock(training, 60_000_000_000)
    training.push_partial_sum("late", push(evaluation, shard=1))
    assert training.owes("late") == (False, False)
    assert training.rows_per_second("late") == rows_per_second > 0


def test_the_first_committed_step_fixes_the_kind_of_workers(job: PreparedJob) -> None:
    training = Training("job", job, clock_ns=lambda: 0)
    training.set_workers([Worker("x", hello=pb.Hello(numpy_version="2"))])
    assert training.roster.computed_kinds == ()
    training.set_workers([])
    training.set_workers([Worker("a", hello=pb.Hello(numpy_version="1"))])
    training.report_ready("a", pb.Ready(job_id="job", generation=training.generation))
    ((_, order),) = orders(training)
    training.push_partial_sum("a", push(order, shard=0, shards=2))
    assert training.roster.computed_kinds == ("numpy 1",)
    training.set_workers([Worker("x", hello=pb.Hello(numpy_version="2"))])
    assert training.roster.refused == ("x",)
