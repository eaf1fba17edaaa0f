"""Workers at speeds of all kinds help one another; the claim is that no bit of the result depends on it."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from chainrule.holding.backup_tasks import BackupTasks
from chainrule.holding.exchange import Exchange, StreamExchange
from chainrule.transport import wire
from chainrule.transport.wire_codec import RawPart
from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine import step_update
from chainrule_engine.precision import FLOAT32
from chainrule_engine.reduction import Subtree
from chainrule_server.data import data_set
from chainrule_server.data.data_set import DataSet
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.training.training import Training
from chainrule_server.workers.worker import Worker
from tests.plain_workers import PlainWorkers, receive, train_with_plain_workers

MS = 1_000_000


def job_of(*, shards: int) -> PreparedJob:
    """Vectors of three parts, where a part is 64 elements; an epoch's last step leaves some shards without rows."""
    generator = np.random.default_rng(0)
    data = DataSet("test:help", generator.normal(size=(50, 4)), generator.normal(size=50), tuple("abcd"))
    spec = job_pb2.JobSpec(name="help")
    spec.model.prediction = "w @ tanh(V @ x)"
    spec.model.loss = "(prediction - y)**2"
    spec.model.parameters.add(name="V", shape=["32", "d"])
    spec.model.parameters.add(name="w", shape=["32"])
    spec.data.uri = "test:help"
    spec.training.epochs = 2
    spec.training.batch_size = 16
    spec.training.shards = shards
    spec.training.optimizer.name = "adam"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data_set.LOADERS, "test:help", lambda: data)
        return prepare(spec)


def train_at_random(job: PreparedJob, *, worker_count: int, seed: int) -> tuple[str, int]:
    """The hash, and how often somebody helped, where every message is taken in turns drawn at random."""
    chosen = random.Random(seed)
    now_ns = 0
    training = Training("job", job, clock_ns=lambda: now_ns)
    names = [f"w-{number}" for number in range(worker_count)]
    # How likely each is to do anything when it could.
    speed = {name: chosen.choice([1.0, 0.3, 0.05]) for name in names}
    queues: dict[tuple[str, str], deque[Any]] = {(way, name): deque() for name in names for way in ("to", "from")}

    def deliver(name: str, message: RawPart | pb.PartialSum | pb.Ready) -> None:
        if isinstance(message, RawPart):
            message = message._replace(values=memoryview(bytes(message.values)))
        queues["from", name].append(message)

    workers = PlainWorkers(training, deliver)
    training.set_workers([Worker(name) for name in names])
    for _ in range(100_000):
        for message in training.outbox:
            queues["to", message.name].append(message.response)
        training.outbox.clear()
        if training.result is not None:
            return training.result.parameters_sha256, workers.help_count
        now_ns += chosen.choice([MS, 10 * MS, 300 * MS])
        if training.relieve_stragglers():
            training.set_workers([Worker(name) for name in names])
            continue
        full = [key for key, queue in queues.items() if queue and chosen.random() < speed[key[1]]]
        if full:
            way, name = chosen.choice(full)
            if way == "to":
                workers.take(name, queues[way, name].popleft())
            else:
                receive(training, name, queues[way, name].popleft())
    raise AssertionError(f"the job did not end: {training.waiting}")


@pytest.mark.parametrize("shards", [2, 8])
@pytest.mark.parametrize("part_elements", [64, wire.PART_ELEMENTS], ids=["parts", "whole"])
def test_whoever_helps_whom_the_bits_are_those_of_one_worker(
    shards: int, part_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "PART_ELEMENTS", part_elements)
    for unit in ("BLOCK", "GRAIN"):
        monkeypatch.setattr(step_update, unit, min(getattr(step_update, unit), part_elements))
    job = job_of(shards=shards)
    result = train_with_plain_workers(job, worker_count=1).result
    assert result is not None
    help_count = 0

    @settings(max_examples=40, deadline=None)
    @given(worker_count=st.integers(2, 4), seed=st.integers(0, 2**32))
    def check(worker_count: int, seed: int) -> None:
        nonlocal help_count
        digest, count = train_at_random(job, worker_count=worker_count, seed=seed)
        note(f"{count} times somebody helped")
        assert digest == result.parameters_sha256
        help_count += count

    check()
    assert help_count > 0


@given(
    rows=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    loads=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 20)),
    unable=st.sets(st.sampled_from("abcd")),
)
def test_every_subtree_has_one_helper_who_is_able_and_is_asked_for_once(
    rows: list[int], loads: dict[str, int], unable: set[str]
) -> None:
    helping = BackupTasks(exchange_of)
    helping.unable |= unable
    counts = {Subtree(shard, 1): count for shard, count in enumerate(rows)}
    chosen = helping.choose(counts, counts, loads)
    able = loads.keys() - unable
    assert chosen.keys() == (counts.keys() if able else set())
    assert set(chosen.values()) <= able
    # A second time nobody is asked again.
    assert helping.choose(counts, counts, loads) == {}


def exchange_of(name: str, subtree: Subtree) -> Exchange:
    return StreamExchange([subtree], 3, FLOAT32)
