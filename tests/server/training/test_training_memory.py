"""What a training held is free when it has ended: nothing waits for a full collection, which may be long in coming."""

from __future__ import annotations

import pytest

from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.training.training import Training
from chainrule_server.workers.worker import Worker
from tests.garbage import left_behind
from tests.plain_workers import PlainWorkers
from tests.server.training.test_training import job as job


def trained(job: PreparedJob, *, share_memory: bool) -> Training:
    training = Training("job", job, clock_ns=lambda: 0, share_memory=share_memory)
    workers = PlainWorkers(training)
    # The workers change between the steps, and one of two is helped by the other.
    for names in (("a", "b"), ("a",), ("b", "a")):
        training.set_workers([Worker(name) for name in names])
        while training.outbox and training.result is None:
            message = training.outbox.pop(0)
            workers.take(message.name, message.response)
            if training.state.step == 1 and len(names) == 2:
                break
    return training


@pytest.mark.parametrize("share_memory", [False, True])
def test_a_training_that_has_ended_holds_nothing_of_itself(job: PreparedJob, share_memory: bool) -> None:
    assert left_behind(lambda: trained(job, share_memory=share_memory).end()) == []


def test_workers_that_are_replaced_leave_nothing_behind(job: PreparedJob) -> None:
    training = Training("job", job, clock_ns=lambda: 0, share_memory=True)

    def change() -> None:
        training.set_workers([Worker("a", shares_memory=True), Worker("b")])
        training.set_workers([Worker("b"), Worker("c", shares_memory=True)])
        training.outbox.clear()

    assert left_behind(change) == []
