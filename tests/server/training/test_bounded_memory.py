"""What the server holds of a job: parameters twice, optimizer state twice, at most one partial sum for each shard."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from chainrule.holding.exchange import SharedExchange, StreamExchange
from chainrule.holding.parameter_memory import slot_bytes
from chainrule.v1 import job_pb2
from chainrule_server.data import data_set
from chainrule_server.data.data_set import DataSet
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.training.training import Training, Worker
from tests.plain_workers import train_with_plain_workers
from tests.vector_count import counting

# No other test makes vectors of this size.
SIZE = 70_003
SHARDS = 8


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> PreparedJob:
    random = np.random.default_rng(0)
    data = DataSet("test:one", random.normal(size=(16, 1)), random.normal(size=16), ("a",))
    monkeypatch.setitem(data_set.LOADERS, "test:one", lambda: data)
    spec = job_pb2.JobSpec(name="one")
    spec.model.loss = "(sum(V @ x) - y)**2"
    spec.model.parameters.add(name="V", shape=[str(SIZE), "d"])
    spec.data.uri = "test:one"
    spec.data.validation_fraction = 0
    spec.training.epochs = 2
    spec.training.batch_size = SHARDS
    spec.training.shards = SHARDS
    spec.training.optimizer.name = "adam"
    return prepare(spec)


@pytest.mark.parametrize("worker_count", [1, 3, 5, 8])
def test_over_grpc_the_vectors_are_counted(job: PreparedJob, worker_count: int) -> None:
    with counting(SIZE) as count:
        training = Training("job", job, clock_ns=lambda: 0)
        for _ in range(3):
            training.set_workers([Worker(f"worker-{number}") for number in range(worker_count)])
            training.outbox.clear()
        exchanges = [member.exchange for member in training._group.members.values()]
        pushed = sum(len(each._gradients) for each in exchanges if isinstance(each, StreamExchange))
        assert worker_count <= pushed <= SHARDS
        # Adam has two moments.
        assert count() == 2 + 2 * 2 + pushed


@pytest.mark.parametrize("worker_count", [1, 3, 5, 8])
def test_in_shared_memory_the_bytes_are_counted(job: PreparedJob, worker_count: int) -> None:
    with counting(SIZE) as count:
        training = Training("job", job, clock_ns=lambda: 0, share_memory=True)
        for _ in range(3):
            training.set_workers([Worker(f"worker-{number}", shares_memory=True) for number in range(worker_count)])
            training.outbox.clear()
        assert count() == 2 * 2
    page_bytes = os.sysconf("SC_PAGESIZE")
    parameters_bytes, gradients_bytes = mapped_bytes("chainrule-parameters"), mapped_bytes("chainrule-gradients")
    assert 0 < parameters_bytes <= 2 * slot_bytes(SIZE) + page_bytes
    assert 0 < gradients_bytes <= SHARDS * slot_bytes(SIZE) + worker_count * page_bytes
    assert all(isinstance(member.exchange, SharedExchange) for member in training._group.members.values())


def mapped_bytes(name: str) -> int:
    """What this process maps of the segments with this name."""
    gc.collect()
    found = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if f"memfd:{name}" in line:
            start, stop = (int(each, 16) for each in line.split()[0].split("-"))
            found += stop - start
    return found


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without garbage collection: what is free is free because nobody holds it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_a_job_that_has_ended_holds_none_and_no_descriptor(job: PreparedJob) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    kept = []
    with counting(SIZE) as count:
        for _ in range(3):
            training = Training("job", job, clock_ns=lambda: 0, share_memory=True)
            training.set_workers([Worker("worker", shares_memory=True)])
            training.set_workers([])
            training.outbox.clear()
            kept.append(training.end())
            del training
        assert count() == 0
    assert descriptors() == before
    # What can be told of them is still there.
    assert [list(each.spans()) for each in kept] == [[], [], []]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("share_memory", [False, True])
def test_the_vectors_of_workers_that_are_no_more_are_free_at_once(job: PreparedJob, share_memory: bool) -> None:
    training = Training("job", job, clock_ns=lambda: 0, share_memory=share_memory)
    training.set_workers([Worker("worker", shares_memory=share_memory)])
    exchange = weakref.ref(training._group.members["worker"].exchange)
    training.set_workers([Worker("other", shares_memory=share_memory)])
    assert exchange() is None


@pytest.mark.usefixtures("uncollected")
def test_what_is_left_of_a_training_tells_of_its_steps_and_holds_nothing_else_of_it(job: PreparedJob) -> None:
    training = train_with_plain_workers(job, worker_count=2)
    spans = list(training.spans())
    state = weakref.ref(training.state)
    ended = training.end()
    del training
    assert state() is None
    assert list(ended.spans()) == spans != []
    assert len(ended.worker_kinds) == 1
