"""Everything that can go wrong with processes and links, at random, over the example jobs: every hash must stay.

python -m tests.cluster.chaos [--seconds 600] [--seed N]

Workers are killed, stopped for a while, asked to leave and joined by others; the server is killed and started again;
the links of workers in network namespaces are cut. Two workers share the server's memory, two come over the network,
where this machine lets us make one (Linux, as root). The exit code is 1 where a hash is another one, or a job is lost.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from threadpoolctl import threadpool_limits

from benchmarks.namespaces import INTERFACE, Machine, NotPossible, machines, why_not
from chainrule.spec.job_file import load_job_file
from chainrule.v1 import job_pb2, job_service_pb2_grpc
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.preparation.prepare import prepare
from tests.plain_workers import train_with_plain_workers

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
JOBS = ("linear_hinge", "two_layer", "four_layer")
FINAL = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
LEASE_S = 2.0
CALL_TIMEOUT_S = 5.0
# How long all jobs of a round may take once nothing more is done to them.
CALM_TIMEOUT_S = 120.0


@dataclass
class Place:
    """A worker's place: its process is started again there whenever it has ended. machine: None for this machine."""

    name: str
    options: Sequence[str]
    machine: Machine | None = None
    process: subprocess.Popen[bytes] | None = None
    # When the fault that it suffers from is over, by the monotonic clock, and how.
    over_at_s: float = 0.0
    end_fault: Callable[[], None] | None = None


@dataclass
class Chaos:
    """A server and its workers, and the faults that were injected, by their kinds."""

    folder: Path
    random: random.Random
    network: list[Machine] = field(default_factory=list)
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    _server: subprocess.Popen[bytes] | None = None
    _places: list[Place] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._socket = self.folder / "server.socket"
        here = self.network[0] if self.network else None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])
        local = f"{here.address if here else '127.0.0.1'}:{self._port}"
        self._places = [Place(f"local-{number}", ("--server", local), here) for number in range(2)]
        for number, machine in enumerate(self.network[1:] or [None, None]):
            transport = ("--transport", "grpc")
            self._places.append(Place(f"remote-{number}", ("--server", local, *transport), machine))
        self._host = here.address if here else "127.0.0.1"

    def start_server(self) -> None:
        """Start the server and wait until it listens."""
        home = ("--home", str(self.folder / "home"), "--checkpoint-every-s", "1", "--lease-s", str(LEASE_S))
        listen = ("--host", self._host, "--port", self._port, "--socket", str(self._socket))
        insecure = ("--insecure",) if self.network and _server_knows("--insecure") else ()
        machine = self.network[0] if self.network else None
        self._server = self._spawn(
            "server", machine, "chainrule_server", *home, *listen, *insecure, stdout=subprocess.PIPE
        )
        if self._server.stdout is None or not self._server.stdout.readline():
            raise SystemExit(f"the server did not start:\n{self.log('server')[-2000:]}")

    def log(self, name: str) -> str:
        """What a process has logged."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def keep_workers(self) -> None:
        """Start every worker that has ended, and end faults that are over."""
        for place in self._places:
            if place.end_fault is not None and time.monotonic() >= place.over_at_s:
                place.end_fault()
                place.end_fault = None
            if place.process is not None and place.process.poll() is not None:
                place.process.communicate()  # which closes its pipe
                place.process = None
            if place.process is None:
                place.process = self._spawn(
                    place.name, place.machine, "chainrule_worker", *place.options, "--name", place.name
                )

    def disturb(self) -> None:
        """One fault, drawn at random."""
        kind = self.random.choices(
            ("worker killed", "worker stopped", "worker left", "link cut", "server killed", "all workers killed"),
            (30, 25, 10, 20 if self.network else 0, 10, 5),
        )[0]
        healthy = [place for place in self._places if place.end_fault is None and place.process is not None]
        if kind == "server killed":
            self._kill_server()
        elif kind == "all workers killed":
            for place in healthy:
                self._signal(place, signal.SIGKILL)
        elif not healthy:
            return
        elif kind == "link cut":
            remote = [place for place in healthy if place.machine is not None and place.machine != self.network[0]]
            if not remote:
                return
            self._cut(self.random.choice(remote))
        else:
            place = self.random.choice(healthy)
            number = {"worker killed": signal.SIGKILL, "worker left": signal.SIGTERM}.get(kind, signal.SIGSTOP)
            self._signal(place, number)
            if number == signal.SIGSTOP:
                place.over_at_s = time.monotonic() + self.random.uniform(0.2, 2 * LEASE_S)
                place.end_fault = lambda: self._signal(place, signal.SIGCONT)
        self.faults[kind] += 1

    def calm(self) -> None:
        """End every fault that lasts."""
        for place in self._places:
            place.over_at_s = 0.0
        self.keep_workers()

    def end(self) -> None:
        """End every process of ours."""
        self.calm()
        for process in [self._server, *(place.process for place in self._places)]:
            if process is not None:
                process.kill()
                process.communicate()

    @contextlib.contextmanager
    def jobs(self) -> Iterator[job_service_pb2_grpc.JobServiceStub]:
        """The server's jobs, over its Unix socket: no cut link is in the way."""
        with grpc.insecure_channel(f"unix:{self._socket}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            yield job_service_pb2_grpc.JobServiceStub(channel)

    def _spawn(
        self, name: str, machine: Machine | None, module: str, *options: str, stdout: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", module, *options, "--exit-with-stdin"]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command if machine is None else machine.inside(command),
                stdin=subprocess.PIPE, stdout=stdout, stderr=log,
            )  # fmt: skip

    def _kill_server(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
        self.start_server()

    def _signal(self, place: Place, number: signal.Signals) -> None:
        if place.process is not None and place.process.poll() is None:
            place.process.send_signal(number)

    def _cut(self, place: Place) -> None:
        if place.machine is None:
            raise TypeError("a link is cut of a worker in a namespace")
        set_link = ("ip", "-n", place.machine.namespace, "link", "set", INTERFACE)
        subprocess.run([*set_link, "down"], check=True, timeout=10)
        place.over_at_s = time.monotonic() + self.random.uniform(0.2, 3 * LEASE_S)
        place.end_fault = lambda: subprocess.run([*set_link, "up"], check=True, timeout=10) and None


def _server_knows(option: str) -> bool:
    command = [sys.executable, "-P", "-m", "chainrule_server", "--help"]
    return option in subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def specs(*, epochs_factor: float) -> dict[str, job_pb2.JobSpec]:
    """The example jobs, so many times as long."""
    found = {}
    for name in JOBS:
        spec = load_job_file(EXAMPLES / f"{name}.toml")
        spec.training.epochs = max(1, int(spec.training.epochs * epochs_factor))
        found[name] = spec
    return found


def undisturbed(spec: job_pb2.JobSpec) -> str:
    """The hash of a job in one process, to which nothing happens."""
    with threadpool_limits(1):
        training = train_with_plain_workers(prepare(spec), worker_count=1)
    return "" if training.result is None else training.result.parameters_sha256


def persistently(call: Callable[[], job_pb2.Job], until_s: float) -> job_pb2.Job:
    """What a call returns, tried again while the server is away."""
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            if time.monotonic() > until_s:
                raise SystemExit(f"the server does not answer any more: {error.details()}") from error
        time.sleep(0.1)


def one_round(chaos: Chaos, jobs: dict[str, job_pb2.JobSpec], *, calm_at_s: float) -> dict[str, job_pb2.Job]:
    """Every job, submitted at once and disturbed until it has ended, or until calm_at_s of the monotonic clock."""
    until_s = calm_at_s + CALM_TIMEOUT_S
    with chaos.jobs() as stub:
        found = {}
        for name, spec in jobs.items():
            # A repetition after a lost answer makes no second job.
            request = api.CreateJobRequest(spec=spec, request_id=secrets.token_hex(8))
            found[name] = persistently(lambda: stub.CreateJob(request, timeout=60).job, until_s)  # noqa: B023
        next_s = time.monotonic()
        while any(job.state not in FINAL for job in found.values()):
            now_s = time.monotonic()
            if now_s > until_s:
                waiting = {name: job.waiting_for for name, job in found.items() if job.state not in FINAL}
                raise SystemExit(f"jobs that nothing disturbs have not ended within {CALM_TIMEOUT_S:g} s: {waiting}")
            if now_s >= calm_at_s:
                chaos.calm()
            elif now_s >= next_s:
                chaos.disturb()
                next_s = now_s + chaos.random.uniform(0.1, 1.5)
            chaos.keep_workers()
            for name, job in found.items():
                if job.state not in FINAL:
                    request_ = api.GetJobRequest(job_id=job.job_id)
                    found[name] = persistently(
                        lambda: stub.GetJob(request_, timeout=CALL_TIMEOUT_S).job,  # noqa: B023
                        until_s,
                    )
            time.sleep(0.05)
    return found


def run(folder: Path, *, seconds: float, seed: int, epochs_factor: float, network: list[Machine]) -> int:
    """Rounds of all jobs until the time is over; the number of hashes that were wrong."""
    jobs = specs(epochs_factor=epochs_factor)
    expected = {name: undisturbed(spec) for name, spec in jobs.items()}
    chaos = Chaos(folder, random.Random(seed), network)
    started_s, rounds, wrong = time.monotonic(), 0, 0
    try:
        chaos.start_server()
        while time.monotonic() < started_s + seconds or not rounds:
            ended = one_round(chaos, jobs, calm_at_s=started_s + seconds)
            rounds += 1
            for name, job in ended.items():
                is_right = job.result.parameters_sha256 == expected[name] and job.state == job_pb2.JOB_STATE_SUCCEEDED
                wrong += not is_right
                how = "the undisturbed hash" if is_right else f"WRONG, expected {expected[name]}: {job.error.message}"
                print(f"round {rounds}: {name:<13}{job.result.parameters_sha256[:16]}  {how}", flush=True)  # noqa: T201
    except Exception:
        print(f"the server's log ends:\n{chaos.log('server')[-4000:]}", flush=True)  # noqa: T201
        raise
    finally:
        chaos.end()
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(chaos.faults.items()))
    total = sum(chaos.faults.values())
    print(  # noqa: T201
        f"{total} faults in {time.monotonic() - started_s:.0f} s ({kinds}); "
        f"{rounds * len(jobs)} jobs, {wrong} wrong; seed {seed}"
    )
    return wrong


@contextlib.contextmanager
def network_of(count: int) -> Iterator[list[Machine]]:
    """So many machines, or none, with a notice, where namespaces can't be had."""
    with contextlib.ExitStack() as stack:
        reason, made = why_not(), []
        if reason is None:
            try:
                made = stack.enter_context(machines(count, rate="1gbit"))
            except NotPossible as error:
                reason = str(error)
        if reason is not None:
            print(f"no links are cut: {reason}", flush=True)  # noqa: T201
        yield made


def main() -> int:
    """Run from the command line; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("CHAOS_S") or 600))
    parser.add_argument("--seed", type=int, default=secrets.randbits(31))
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    print(f"seed {arguments.seed}", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory(prefix="chainrule-chaos-") as name, network_of(3) as network:
        wrong = run(Path(name), seconds=arguments.seconds, seed=arguments.seed, epochs_factor=4, network=network)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
