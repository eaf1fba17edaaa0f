"""A worker that is ten times slower than the others: its shards move, and the bits stay."""

from __future__ import annotations

import pytest

from benchmarks.stragglers import slowed
from chainrule.client.blocking.client import Client
from tests.cluster.jobs import Reference, large, last
from tests.cluster.support import Processes, wait_for

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("transport", ["grpc", "auto"])
def test_shards_move_away_from_a_slow_worker_and_no_bit_changes(
    transport: str, processes: Processes, reference: Reference
) -> None:
    names = ("a", "b", "slow")
    address = processes.server()
    for name in names:
        processes.worker(name, address, "--transport", transport)
    spec = large()
    spec.training.min_workers = 3
    spec.training.epochs = 25
    with Client(address) as client:
        wait_for(lambda: all(processes.joined(name, 1) for name in names))
        with slowed(processes.started["slow"].pid):
            job = last(client, client.create_job(spec).job_id)
        events = [event for update in client.watch_updates(job.job_id, after_event=0) for event in update.events]
    moves = [event.shards_moved for event in events if event.HasField("shards_moved")]
    assert moves[0].slow_worker == "slow"
    assert sum(share.shard_count for share in moves[0].shares) == 8
    assert job.result.parameters_sha256 == reference(spec)
