"""What the tests with real processes share."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from chainrule.client.blocking.client import Client
from chainrule.spec.job_file import load_job_file
from chainrule.v1 import job_pb2
from chainrule_engine.microbatch import MicrobatchComputer
from chainrule_engine.parameters import sha256_of
from chainrule_engine.synchronous_sgd import train_in_one_process
from chainrule_server.preparation.prepare import prepare
from tests.plain_workers import train_with_plain_workers

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND = [sys.executable, "-P", "-m", "chainrule"]

Train = Callable[..., dict[str, Any]]
TIMEOUT_S = 120.0


def processes_with(marker: str) -> list[str]:
    """The command lines of all processes whose environment holds the marker."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if marker.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has ended meanwhile, or it isn't ours
                continue
    return found


def shared_files() -> set[str]:
    """The names in /dev/shm, without the semaphores that process pools of other tests have there for a while."""
    return {path.name for path in Path("/dev/shm").iterdir() if not path.name.startswith("sem.")}  # noqa: S108


def wait_for(condition: Callable[[], object], *, timeout_s: float = TIMEOUT_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited too long"
        time.sleep(0.01)


@dataclass
class Processes:
    """A server and workers with logs of their own."""

    folder: Path
    data_root: Path
    started: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    may_log_tracebacks: bool = False

    def start(self, name: str, module: str, *options: str) -> subprocess.Popen[str]:
        return self.start_program(name, sys.executable, "-P", "-m", module, *options)

    def start_program(self, name: str, *command: str, **variables: str) -> subprocess.Popen[str]:
        with (self.folder / f"{name}.log").open("a") as log:
            environment = os.environ | {"PYTHONFAULTHANDLER": "1"} | variables
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        self.started[name] = process
        return process

    def server(self, *options: str, port: int = 0, name: str = "server") -> str:
        home = ("--home", str(self.folder / "home"), "--data-root", str(self.data_root))
        process = self.start(name, "chainrule_server", "--port", str(port), *home, *options)
        assert process.stdout is not None
        return str(json.loads(process.stdout.readline())["address"])

    def worker(self, name: str, address: str, *options: str) -> subprocess.Popen[str]:
        return self.start(name, "chainrule_worker", "--server", address, "--name", name, *options)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def joined(self, name: str, count: int, *, server: str = "server") -> bool:
        return len(re.findall(f"worker {name}(-[0-9]+)? joined", self.log(server))) >= count

    def end(self) -> None:
        for process in self.started.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        hanging = []
        for name, process in self.started.items():
            with process:
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    # With PYTHONFAULTHANDLER it says where it hangs.
                    process.send_signal(signal.SIGABRT)
                    process.wait()
                    hanging.append(f"{name} did not end:\n{self.log(name)}")
        assert not hanging, "\n".join(hanging)


class RestartableServer:
    """A server at one address and home that can be killed and started again, with workers that stay.

    `with RestartableServer(home, workers=2) as server:` the first start is included. At the end all are killed."""

    def __init__(self, home: Path, *, workers: int = 0, options: Sequence[str] = ()) -> None:
        self.home = home
        self._log_path = home.parent / f"{home.name}.log"
        self._worker_count = workers
        self._options = [*options]
        self._server: subprocess.Popen[str] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []
        # What the server said when it listened.
        self.answer: dict[str, str] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self) -> RestartableServer:
        try:
            self.start()
            for number in range(self._worker_count):
                self.add_worker(f"worker-{number}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self._workers, *([] if self._server is None else [self._server])]:
            process.kill()
            process.communicate()

    def start(self) -> None:
        """Start the server and wait until it listens."""
        command = [sys.executable, "-P", "-m", "chainrule_server", "--port", self.address.rpartition(":")[2]]
        with self._log_path.open("ab") as log:
            self._server = subprocess.Popen(
                [*command, "--home", str(self.home), "--exit-with-stdin", *self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"PYTHONFAULTHANDLER": "1"},
            )
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, self.log()
        self.answer = json.loads(line)

    def end(self, number: int = signal.SIGKILL) -> int:
        """End the server by a signal, kill -9 unless another is given, and return its exit code."""
        assert self._server is not None
        self._server.send_signal(number)
        self._server.communicate(timeout=60)
        return self._server.returncode

    def add_worker(self, name: str) -> None:
        """Start another worker."""
        command = [sys.executable, "-P", "-m", "chainrule_worker", "--server", self.address, "--exit-with-stdin"]
        with self._log_path.open("ab") as log:
            self._workers.append(subprocess.Popen([*command, "--name", name], stdin=subprocess.PIPE, stderr=log))

    def kill_worker(self) -> None:
        """End the worker that was started first, by kill -9."""
        worker = self._workers.pop(0)
        worker.kill()
        worker.communicate()

    @property
    def process_id(self) -> int:
        """The server's process."""
        assert self._server is not None
        return self._server.pid

    def stacks(self) -> str:
        """End the server, and return the log with where each of its threads stood."""
        self.end(signal.SIGABRT)
        return self.log()

    def log(self) -> str:
        """What the server and the workers have logged."""
        return self._log_path.read_text()


def job_spec(name: str, *, epochs: int, seed: int = 0) -> job_pb2.JobSpec:
    """A job that has everything that must be taken up again: moments, running statistics, a plateau, the best."""
    spec = job_pb2.JobSpec(name=name)
    spec.model.prediction = "w @ relu(scale * batch_norm(V @ x) + shift) + b"
    spec.model.loss = "(prediction - y)**2"
    for parameter, shape in (("V", ["16", "d"]), ("scale", ["16"]), ("shift", ["16"]), ("w", ["16"]), ("b", [])):
        spec.model.parameters.add(name=parameter, shape=shape)
    spec.data.uri = "sklearn:diabetes"
    training = spec.training
    training.epochs, training.batch_size, training.shards, training.seed = epochs, 64, 4, seed
    training.optimizer.name, training.optimizer.learning_rate = "adam", 0.001
    training.schedule.name, training.schedule.patience_epochs, training.schedule.factor = "reduce_on_plateau", 5, 0.9
    training.early_stopping.patience_epochs = epochs
    training.checkpoint_every_steps = 40
    return spec


@functools.cache
def undisturbed(epochs: int, seed: int) -> job_pb2.Result:
    """What comes out of a `job_spec` that nothing disturbs; its name and checkpoints have no influence."""
    result = train_with_plain_workers(prepare(job_spec("undisturbed", epochs=epochs, seed=seed)), worker_count=1).result
    assert result is not None
    return result


def sha256_of_the_engine_alone(job_file: Path) -> str:
    """The hash of the parameters that come out where one process trains the job's steps, without server or worker."""
    job = prepare(load_job_file(job_file))
    shards = range(job.spec.training.shards)
    computer = MicrobatchComputer(
        job.model,
        job.schedule,
        job.measure,
        training={shard: job.shard(shard, validation=False) for shard in shards},
        validation={},
    )
    state = job.first_state()
    with threadpool_limits(1):
        train_in_one_process(computer, state, steps=job.total_steps)
    return sha256_of(state.parameters)


def wait_until(client: Client, job_id: str, *, step: int) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while client.get_job(job_id).progress.step < step:
        assert time.monotonic() < deadline_s, "waited too long"
        time.sleep(0.02)


def ended(client: Client, job_id: str) -> job_pb2.Job:
    *_, last = client.watch_job(job_id)
    return last


def history(client: Client, job_id: str) -> list[job_pb2.JobEvent]:
    return [event for update in client.watch_updates(job_id, after_event=0) for event in update.events]


def states_in(events: list[job_pb2.JobEvent]) -> list[job_pb2.JobState]:
    return [event.state_changed.state for event in events if event.HasField("state_changed")]
