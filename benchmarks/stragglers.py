"""One of three workers is slowed tenfold, or stands still now and then: how long a job takes with the others' help, and
without.

python -m benchmarks.stragglers [--steps 100] [--transport grpc]

The slow worker is stopped and let go on from outside, by SIGSTOP and SIGCONT: it runs a tenth of the time, or stands
still for one second in two.
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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import end_cleanly
from chainrule.client.blocking.client import Client
from chainrule.local.processes import LocalProcesses
from chainrule.v1 import job_pb2

ROWS, FEATURES, HIDDEN, BATCH = 8192, 128, 512, 2048
# For how long the slow worker runs, and then stands still.
Slowing = tuple[float, float]
TENFOLD: Slowing = (0.01, 0.09)
NOW_AND_THEN: Slowing = (1.0, 1.0)
WANTED = 2.5


@dataclass(frozen=True)
class Run:
    """wall_s: of the training. moves: how often shards moved. helps: how often it was told that a worker was helped."""

    wall_s: float
    parameters_sha256: str
    moves: int
    helps: int


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
def slowed(process_id: int, slowing: Slowing | None = TENFOLD) -> Iterator[None]:
    """A process that runs a part of the time, until the end of the block; None doesn't slow it."""
    ended = threading.Event()

    def slow() -> None:
        while slowing is not None and not ended.is_set():
            runs_s, stops_s = slowing
            os.kill(process_id, signal.SIGSTOP)
            ended.wait(stops_s)
            os.kill(process_id, signal.SIGCONT)
            ended.wait(runs_s)

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def train(folder: Path, transport: str, *, steps: int, factor: float, slowing: Slowing | None) -> Run:
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
        with slowed(cluster.process_ids[1], slowing):
            job = client.create_job(spec(steps=steps, factor=factor))
            kinds: Counter[str | None] = Counter()
            for update in client.watch_updates(job.job_id, after_event=0):
                job = update.job
                kinds.update(event.WhichOneof("event") for event in update.events)
    if job.state != job_pb2.JOB_STATE_SUCCEEDED:
        raise SystemExit(f"the job failed: {job.error.message}")
    return Run(job.result.training_s, job.result.parameters_sha256, kinds["shards_moved"], kinds["late_worker_helped"])


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
            "nobody slowed": (3.0, None),
            "one slowed tenfold, left alone": (0.0, TENFOLD),
            "one slowed tenfold, helped": (3.0, TENFOLD),
            "one stopped now and then, left alone": (0.0, NOW_AND_THEN),
            "one stopped now and then, helped": (3.0, NOW_AND_THEN),
        }
        runs = {
            case: train(folder, arguments.transport, steps=arguments.steps, factor=factor, slowing=slowing)
            for case, (factor, slowing) in cases.items()
        }
    for case, run in runs.items():
        print(f"{case:<38}{run.wall_s:8.2f} s   {run.moves} moves   helped: {run.helps}   {run.parameters_sha256[:16]}")
    same = len({run.parameters_sha256 for run in runs.values()}) == 1
    won = {
        slow: runs[f"one {slow}, left alone"].wall_s / runs[f"one {slow}, helped"].wall_s
        for slow in ("slowed tenfold", "stopped now and then")
    }
    print("; ".join(f"{slow}: {times:.1f} times as fast where helped" for slow, times in won.items()))
    print(f"wanted: {WANTED} for slowed tenfold; {'the same bits' if same else 'OTHER BITS'}")
    return 0 if same and won["slowed tenfold"] >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
