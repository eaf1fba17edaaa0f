"""What the tests with real processes share."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND = [sys.executable, "-P", "-m", "chainrule"]

Train = Callable[..., dict[str, Any]]


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
            command = [sys.executable, "-P", "-m", "worker", "--server", self.address, "--exit-with-stdin"]
            with self._log_path.open("ab") as log:
                self._workers = [
                    subprocess.Popen([*command, "--name", f"worker-{number}"], stdin=subprocess.PIPE, stderr=log)
                    for number in range(self._worker_count)
                ]
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
        command = [sys.executable, "-P", "-m", "server", "--port", self.address.rpartition(":")[2]]
        with self._log_path.open("ab") as log:
            self._server = subprocess.Popen(
                [*command, "--home", str(self.home), "--exit-with-stdin", *self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, self.log()
        self.answer = json.loads(line)

    def end(self, number: int = signal.SIGKILL) -> int:
        """End the server by a signal, kill -9 unless another is given, and return its exit code."""
        assert self._server is not None
        self._server.send_signal(number)
        self._server.communicate(timeout=20)
        return self._server.returncode

    @property
    def process_id(self) -> int:
        """The server's process."""
        assert self._server is not None
        return self._server.pid

    def log(self) -> str:
        """What the server and the workers have logged."""
        return self._log_path.read_text()
