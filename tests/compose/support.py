"""A cluster of containers, as docker-compose.yml at the top has it, under a name and a port of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from chainrule import Client, Credentials, Tls, load_job_file
from chainrule.client.job_text import FINAL_STATES
from chainrule.v1 import job_pb2

ROOT = Path(__file__).resolve().parents[2]
BASE_IMAGE = "python:3.11-slim-bookworm"
TIMEOUT_S = 240.0


def why_no_engine() -> str | None:
    """Why there is no Docker Engine with Compose v2 to test with; None where there is."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            return f"'{' '.join(command)}' fails: {done.stderr.strip().splitlines()[-1] if done.stderr else ''}"
    return None


def docker(*arguments: str, check: bool = True) -> str:
    """What a docker command prints. Where it fails, the test does."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


class Cluster:
    """`with Cluster(image, folder) as cluster:` healthy containers; at the end nothing of them is left.

    folder: what the job files and certificates of a client are put into. overlays: further compose files."""

    def __init__(self, image: str, folder: Path, overlays: Sequence[str] = ()) -> None:
        self.project = f"chainrule-test-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.jobs = folder / "jobs"
        self.jobs.mkdir()
        folder.chmod(0o755)
        self._files = [each for file in ("docker-compose.yml", *overlays) for each in ("--file", str(ROOT / file))]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._environment = os.environ | {
            "CHAINRULE_IMAGE": image,
            "CHAINRULE_JOBS": str(self.jobs),
            "CHAINRULE_PORT": self.address.rpartition(":")[2],
        }

    def __enter__(self) -> Cluster:
        try:
            self.up()
            self._take_certificates()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("--profile", "cli", "down", "--volumes", "--timeout", "5", "--remove-orphans")

    def compose(self, *arguments: str) -> str:
        """What `docker compose` prints. Where it fails, the test does."""
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.project, *self._files, *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self, workers: int = 2) -> None:
        """Bring everything up and wait until it is healthy."""
        self.compose("up", "--no-build", "--wait", "--detach", "--scale", f"worker={workers}")

    def scale(self, workers: int) -> None:
        """Have so many containers of workers, not waiting for them to be healthy."""
        self.compose("up", "--no-build", "--detach", "--no-recreate", "--scale", f"worker={workers}", "worker")

    def containers(self, service: str) -> list[str]:
        """The containers of a service that run."""
        return self.compose("ps", "--quiet", "--status", "running", service).split()

    def _take_certificates(self) -> None:
        """As docs/compose.md has it for a client on the host."""
        certificates = self.folder / "certificates"
        certificates.mkdir()
        command = ["docker", "compose", "--project-name", self.project, *self._files]
        packed = subprocess.run(
            [*command, "run", "--rm", "-T", "--no-deps", "--entrypoint", "tar", "cli", "-cC", "/certificates", "."],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        subprocess.run(
            ["tar", "-xC", str(certificates), "--no-same-owner"], input=packed.stdout, timeout=60, check=True
        )

    def client(self, token: str | None = None) -> Client:
        """A client on the host, by the published port and its certificate; token: one that says who it is."""
        folder = self.folder / "certificates"
        return Client(
            self.address,
            credentials=Credentials(Tls(folder / "ca.pem", folder / "client.pem", folder / "client.key"), token),
        )

    def submit(self, job_file: Path) -> str:
        """Submit a job and wait until it has made a few steps; its id."""
        with self.client() as client:
            job_id = client.create_job(load_job_file(job_file)).job_id
        self.wait_for_step(job_id, 200)
        return job_id

    def wait_for_step(self, job_id: str, step: int) -> job_pb2.Job:
        """The job once it has made this step."""
        return self._wait(job_id, lambda job: job.progress.step >= step)

    def wait_for_end(self, job_id: str) -> job_pb2.Job:
        """The job once it has ended."""
        return self._wait(job_id, lambda job: job.state in FINAL_STATES)

    def _wait(self, job_id: str, condition: Callable[[job_pb2.Job], bool]) -> job_pb2.Job:
        deadline_s = time.monotonic() + TIMEOUT_S
        job = job_pb2.Job()
        while not condition(job):
            assert time.monotonic() < deadline_s, f"waited too long: {job}"
            assert job.state not in FINAL_STATES, f"the job ended too soon: {job}"
            time.sleep(0.1)
            try:
                with self.client() as client:
                    job = client.get_job(job_id)
            except Exception as error:  # the server may be away; what lasts is an error at the deadline
                if time.monotonic() > deadline_s:
                    raise AssertionError("the server stays away") from error
        return job
