"""One of three workers is slowed tenfold: how long a job takes with shards that move away from it, and without.

python benchmarks/stragglers.py [--steps 100] [--transport grpc]

The slow worker is stopped and let go on from outside, by SIGSTOP and SIGCONT: it runs a tenth of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import end_cleanly
from chainrule.client import Client
from chainrule.local_processes import LocalProcesses
from chainrule.v1 import job_pb2

ROWS, FEATURES, HIDDEN, BATCH = 8192, 128, 512, 2048
RUNS_S, STOPS_S = 0.01, 0.09
WANTED = 2.5


@dataclass(frozen=True)
class Run:
    """wall_s: of the training. moves: how often shards moved."""

    wall_s: float
    parameters_sha256: str
    moves: int


def spec(*, steps: int, factor: float) -> job_pb2.JobSpec:
    """A network whose steps take some tens of milliseconds on each of three workers."""
    job = job_pb2.JobSpec(name="stragglers")
    job.model.prediction = "w @ tanh(V2 @ tanh(V1 @ x))"
    job.model.loss = "(prediction - y)**2"
    job.model.parameters.add(name="V1", shape=[str(HIDDEN), "d"])
    job.model.parameters.add(name="V2", shape=[str(HIDDEN), str(HIDDEN)])
    job.model.parameters.add(name="w", shape=[str(HIDDEN)])
    job.data.uri = "file:rows.npz"
    job.data.validation_fraction = 0
    job.training.epochs = max(1, steps * BATCH // ROWS)
    job.training.batch_size = BATCH
    job.training.min_workers = 3
    job.training.stragglers.factor = factor
    job.training.optimizer.learning_rate = 0.01
    return job


@contextlib.contextmanager
def slowed(process_id: int | None) -> Iterator[None]:
    """A process that runs a tenth of the time, until the end of the block; None slows nobody."""
    ended = threading.Event()

    def slow() -> None:
        while process_id is not None and not ended.is_set():
            os.kill(process_id, signal.SIGSTOP)
            ended.wait(STOPS_S)
            os.kill(process_id, signal.SIGCONT)
            ended.wait(RUNS_S)

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def train(folder: Path, transport: str, *, steps: int, factor: float, is_slowed: bool) -> Run:
    """The job on a cluster of its own."""
    with (
        LocalProcesses(3, folder, transport) as cluster,
        Client(cluster.address, credentials=cluster.credentials) as client,
    ):
        deadline_s = time.monotonic() + 60
        while len(client.list_workers()) < 3:
            if time.monotonic() > deadline_s:
                raise SystemExit("the three workers did not join within 60 s")
            time.sleep(0.1)
        with slowed(cluster.process_ids[1] if is_slowed else None):
            job = client.create_job(spec(steps=steps, factor=factor))
            moves = 0
            for update in client.watch_updates(job.job_id, after_event=0):
                job = update.job
                moves += sum(event.HasField("shards_moved") for event in update.events)
    if job.state != job_pb2.JOB_STATE_SUCCEEDED:
        raise SystemExit(f"the job failed: {job.error.message}")
    return Run(job.result.training_s, job.result.parameters_sha256, moves)


def main() -> int:
    """Print the table; the exit code is 1 where the bits differ or too little is won."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--transport", choices=["auto", "grpc", "shared-memory"], default="auto")
    arguments = parser.parse_args()
    end_cleanly()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random = np.random.default_rng(0)
        np.savez(folder / "rows.npz", features=random.normal(size=(ROWS, FEATURES)), target=random.normal(size=ROWS))
        cases = {
            "nobody slowed": (3.0, False),
            "one slowed, shards stay": (0.0, True),
            "one slowed, shards move": (3.0, True),
        }
        runs = {
            case: train(folder, arguments.transport, steps=arguments.steps, factor=factor, is_slowed=is_slowed)
            for case, (factor, is_slowed) in cases.items()
        }
    for case, run in runs.items():
        print(f"{case:<26}{run.wall_s:8.2f} s   {run.moves} moves   {run.parameters_sha256[:16]}")
    won = runs["one slowed, shards stay"].wall_s / runs["one slowed, shards move"].wall_s
    same = len({run.parameters_sha256 for run in runs.values()}) == 1
    print(f"{won:.1f} times as fast where shards move (wanted: {WANTED}); {'the same bits' if same else 'OTHER BITS'}")
    return 0 if same and won >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
