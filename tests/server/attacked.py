"""A server with one worker, as processes, for tests that do to it what strangers might."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chainrule.client.blocking.client import Client
from chainrule.client.job_text import FINAL_STATES
from chainrule.spec.job_file import load_job_file
from chainrule.v1 import job_pb2

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two_layer.toml"
DESCRIPTORS = 640  # so many that the limit of connections is 128
CONNECTIONS = 128


@dataclass
class Attacked:
    """A server with one worker, as processes."""

    address: str
    process: subprocess.Popen[str]

    @property
    def resident_bytes(self) -> int:
        pages = (Path("/proc") / str(self.process.pid) / "statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()


@contextmanager
def attacked_server(folder: Path) -> Iterator[Attacked]:
    """They end with the block."""

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    with ExitStack() as stack, (folder / "log").open("wb") as log:
        base = [sys.executable, "-P", "-m"]
        pipe = subprocess.PIPE
        options = ["--port", "0", "--home", str(folder / "home"), "--exit-with-stdin", "--transport", "grpc"]
        server = subprocess.Popen(
            [*base, "chainrule_server", *options],
            stdin=pipe,
            stdout=pipe,
            stderr=log,
            text=True,
            preexec_fn=few_descriptors,
        )
        stack.callback(server.communicate)
        stack.callback(server.kill)
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["address"]
        worker = subprocess.Popen(
            [*base, "chainrule_worker", "--server", address, "--transport", "grpc", "--exit-with-stdin"],
            stdin=pipe,
            stderr=log,
        )
        stack.callback(worker.communicate)
        stack.callback(worker.kill)
        yield Attacked(address, server)


def spec(epochs: int) -> job_pb2.JobSpec:
    loaded = load_job_file(EXAMPLE)
    loaded.training.epochs = epochs
    return loaded


def ended(client: Client, job_id: str) -> str:
    for job in client.watch_job(job_id):
        if job.state in FINAL_STATES:
            assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
            return job.result.parameters_sha256
    raise AssertionError("the watch ended before the job")
