"""Twenty jobs after each other: server and workers hold no more after the last than after the first few."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from chainrule.client.blocking.client import Client
from chainrule.v1 import job_pb2
from tests.cluster.jobs import finished
from tests.cluster.support import Processes, wait_for

pytestmark = pytest.mark.cluster
# Hidden units: of 700 features each, so up to 2.1 million parameters, of 8 MiB a vector.
SIZES = (3, 300, 3000, 1500, 40)
ROUNDS = 4
# Less than two vectors of the largest model.
MARGIN_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Held:
    """What a process holds: resident_bytes with shared memory; memory_files that it has mapped or open."""

    resident_bytes: int
    descriptor_count: int
    memory_files: int

    @classmethod
    def by(cls, process_id: int) -> Held:
        folder = Path(f"/proc/{process_id}")
        match = re.search(r"VmRSS:\s+(\d+) kB", (folder / "status").read_text())
        assert match is not None
        targets = []
        for path in (folder / "fd").iterdir():
            try:
                targets.append(str(path.readlink()))
            except FileNotFoundError:  # closed meanwhile
                continue
        mapped = [line for line in (folder / "maps").read_text().splitlines() if "/memfd:" in line]
        files = len(mapped) + sum("/memfd:" in target for target in targets)
        return cls(1024 * int(match[1]), len(targets), files)


def spec_of(hidden: int, number: int) -> job_pb2.JobSpec:
    spec = job_pb2.JobSpec(name=f"job-{number}")
    spec.model.prediction = "w @ tanh(V @ x)"
    spec.model.loss = "(prediction - y)**2"
    spec.model.parameters.add(name="V", shape=[str(hidden), "d"])
    spec.model.parameters.add(name="w", shape=[str(hidden)])
    spec.data.uri = "file:wide.npz"
    spec.training.epochs, spec.training.batch_size, spec.training.shards = 2, 16, 8
    spec.training.optimizer.name, spec.training.optimizer.learning_rate = "adam", 0.0001
    spec.training.min_workers = 2
    return spec


@pytest.mark.parametrize("transport", ["grpc", "auto"])
def test_after_twenty_jobs_of_several_sizes_no_process_holds_more_than_after_two_of_each(
    transport: str, processes: Processes
) -> None:
    address = processes.server()
    for name in ("a", "b"):
        processes.worker(name, address, "--transport", transport)
        wait_for(lambda name=name: processes.joined(name, 1))
    ids = {name: process.pid for name, process in processes.started.items()}
    first: dict[str, Held] = {}
    with Client(address) as client:
        for number in range(ROUNDS * len(SIZES)):
            finished(client, spec_of(SIZES[number % len(SIZES)], number))
            if number + 1 == 2 * len(SIZES):
                first = {name: Held.by(process_id) for name, process_id in ids.items()}
        last = {name: Held.by(process_id) for name, process_id in ids.items()}
    for name, held in last.items():
        before = first[name]
        assert held.resident_bytes < before.resident_bytes + MARGIN_BYTES, (name, before, held)
        assert held.descriptor_count <= before.descriptor_count, (name, before, held)
        assert held.memory_files <= before.memory_files, (name, before, held)
