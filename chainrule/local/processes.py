"""A server and workers on this machine, as child processes that live no longer than their parent wants them.

The children have sessions of their own, so a terminal's ctrl-C reaches only the parent, which ends them. Their
standard input is a pipe from the parent: when the parent is gone, even by kill -9, they see its end and leave. What
such a parent leaves in the folder of temporary files goes when the next cluster starts.
This module knows nothing of jobs or gRPC.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import secrets
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, TextIO

from chainrule.errors import ArgumentError, ClusterError
from chainrule.process.lifecycle import BLAS_THREAD_VARIABLES
from chainrule.process.out_of_memory import OutOfMemory
from chainrule.security.credentials import TOKEN_VARIABLE, VARIABLES, Credentials
from chainrule.security.tokens import Holder, new_token, sha256_of

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 3.0
SHOWN_LOG_LINES = 5
HOME_PREFIX = "chainrule-"
# Its lock is held for as long as the folder is in use.
LOCK_NAME = "lock"
# A new folder is not locked at once, and the children of a killed parent need a moment to leave.
ABANDONED_AFTER_S = 60.0


class Death(NamedTuple):
    """How a process ended, and what it said last."""

    name: str
    how: str
    said: str = ""

    def __str__(self) -> str:
        return f"{self.name} ended ({self.how})" + (f": {self.said}" if self.said else "")


@dataclass
class Child:
    """A process of the cluster."""

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path
    # From before it started.
    memory: OutOfMemory

    def death(self) -> Death | None:
        """How the process ended and what it said last; None while it lives."""
        code = self.process.poll()
        if code is None:
            return None
        if -code in (signal.SIGKILL, signal.SIGTERM):
            # Somebody else's doing: what the process logged before says nothing about it.
            return Death(self.name, how_ended(code, self.memory))
        lines = [line.strip() for line in self.log_path.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        said = " | ".join(errors or lines[-SHOWN_LOG_LINES:])
        return Death(self.name, how_ended(code, self.memory), said)


@dataclass
class LocalProcesses:
    """`with LocalProcesses(workers=2) as cluster:` a server at `cluster.address` with that many workers.

    data_root: the folder whose files jobs may read. The server keeps its own files in a temporary folder that goes
    when the block ends. home: what a server kept before, of which it takes up a copy. Raises ClusterError where the
    server doesn't start. In the main thread SIGTERM and SIGHUP end the block too, as SystemExit. Without a block,
    `start` and `stop` do the same but for the signals."""

    workers: int = 2
    data_root: Path | None = None
    transport: str = "auto"
    home: Path | None = None
    address: str = field(default="", init=False)
    # What a client needs, whatever the environment says of other servers; known once it has started.
    credentials: Credentials = field(default=Credentials(), init=False)
    _worker_token: str = field(default="", init=False, repr=False)
    _children: list[Child] = field(default_factory=list, init=False)
    _home: tempfile.TemporaryDirectory[str] | None = field(default=None, init=False)
    _lock: TextIO | None = field(default=None, init=False)
    _old_handlers: dict[int, Any] = field(default_factory=dict, init=False)
    _reported: set[str] = field(default_factory=set, init=False)
    _worker_count: int = field(default=0, init=False)
    # The process that started it.
    _owner: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        _check_workers(self.workers)

    def __enter__(self) -> LocalProcesses:
        self.catch_signals()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def check_server(self) -> None:
        """Raise ClusterError where the server has ended."""
        if self._children and (death := self._children[0].death()) is not None:
            raise ClusterError(str(death))

    def new_deaths(self) -> list[Death]:
        """How workers ended, each told once."""
        found = []
        for child in self._children[1:]:
            if child.name not in self._reported and (death := child.death()) is not None:
                self._reported.add(child.name)
                found.append(death)
        return found

    @property
    def living_workers(self) -> int:
        """The number of worker processes that run."""
        return sum(child.process.poll() is None for child in self._children[1:])

    @property
    def process_ids(self) -> list[int]:
        """The server's process, then the workers'."""
        return [child.process.pid for child in self._children]

    def end(self) -> Path:
        """End every process, and leave what the server kept: its home, in the folder that `stop` removes.

        Raises ClusterError where it was stopped already."""
        with uninterrupted():
            end_processes([child.process for child in self._children], timeout_s=STOP_TIMEOUT_S)
        return self._server_home()

    def stop(self) -> None:
        """End every process within about 3 s and remove the temporary folder. A second call does nothing."""
        if self._owner not in (0, os.getpid()):
            return  # a fork of the process that it belongs to
        atexit.unregister(self.stop)
        try:
            with uninterrupted():
                end_processes([child.process for child in self._children], timeout_s=STOP_TIMEOUT_S)
                self._children.clear()
                if self._home is not None:
                    self._home.cleanup()
                    self._home = None
                if self._lock is not None:
                    self._lock.close()
                    self._lock = None
        finally:
            while self._old_handlers:
                signal.signal(*self._old_handlers.popitem())

    def start(self) -> None:
        """Start the server and the workers, or nothing. Raises ClusterError."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def scale(self, workers: int) -> None:
        """Start workers, or end those that were started last, until there are so many that live.

        Raises ArgumentError."""
        _check_workers(workers)
        living = [child for child in self._children[1:] if child.process.poll() is None]
        ended, self.workers = living[workers:], workers
        self._children = [child for child in self._children if child not in ended]
        end_processes([child.process for child in ended], timeout_s=STOP_TIMEOUT_S)
        for _ in range(workers - len(living)):
            self._spawn_worker()

    def _start(self) -> None:
        atexit.register(self.stop)
        self._owner = os.getpid()
        try:
            _remove_abandoned()
            self._home = tempfile.TemporaryDirectory(prefix=HOME_PREFIX, ignore_cleanup_errors=True)
            self._lock = (Path(self._home.name) / LOCK_NAME).open("w")
            tokens = self._make_tokens(Path(self._home.name))
        except OSError as error:
            said = f"no temporary folder can be made ({error.strerror or error})"
            raise ClusterError(f"{said}; make room, or name another folder by TMPDIR") from None
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        home = self._server_home()
        if self.home is not None:
            try:
                shutil.copytree(self.home, home)
            except OSError as error:
                said = f"what was kept in {self.home} can't be taken up ({error.strerror or error})"
                raise ClusterError(f"{said}; train anew") from None
        options = ["--host", "127.0.0.1", "--port", "0", "--home", str(home)]
        # Nobody would resume from them: the folder ends with the cluster.
        options += ["--checkpoint-every-s", "0"]
        if self.data_root is not None:
            options += ["--data-root", str(self.data_root)]
        # Everybody on this machine reaches the port, and jobs read files: only the cluster's own get in.
        options += ["--tokens", str(tokens)]
        server = self._spawn("server", "chainrule_server", options, stdout=subprocess.PIPE)
        self.address = _address(server)
        for _ in range(self.workers):
            self._spawn_worker()

    def _server_home(self) -> Path:
        if self._home is None:
            raise ClusterError("the cluster has been stopped")
        return Path(self._home.name) / "home"

    def _make_tokens(self, folder: Path) -> Path:
        """Make new tokens, and the server's file, which has only their hashes."""
        token, self._worker_token = new_token(secrets.token_urlsafe), new_token(secrets.token_urlsafe)
        self.credentials = Credentials(token=token)
        holders = [Holder(role, role, sha256_of(of)) for role, of in (("admin", token), ("worker", self._worker_token))]
        path = folder / "tokens"
        path.write_text("".join(f"{holder.line}\n" for holder in holders))
        return path

    def _spawn_worker(self) -> None:
        self._worker_count += 1
        name = f"worker-{self._worker_count}"
        options = ["--server", self.address, "--name", name, "--transport", self.transport]
        self._spawn(name, "chainrule_worker", options, stdout=subprocess.DEVNULL)

    def _spawn(self, name: str, module: str, options: Sequence[str], *, stdout: int) -> Child:
        if self._home is None:
            raise ClusterError("the cluster has been stopped")
        log_path = Path(self._home.name) / f"{name}.log"
        # -P: a module of the same name in the current folder must not shadow ours.
        command = [sys.executable, "-P", "-m", module, *options, "--exit-with-stdin"]
        environment = os.environ | dict.fromkeys(BLAS_THREAD_VARIABLES, "1")
        for variable in VARIABLES:
            environment.pop(variable, None)  # they are for another server
        if module == "chainrule_worker":
            environment[TOKEN_VARIABLE] = self._worker_token
        memory = OutOfMemory()
        try:
            with log_path.open("wb") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=stdout,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise ClusterError(f"{name} can't be started: {error.strerror}; are there too many processes?") from None
        child = Child(name, process, log_path, memory)
        self._children.append(child)
        return child

    def catch_signals(self) -> None:
        """Let SIGTERM and SIGHUP raise SystemExit in the main thread until `stop`."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                self._old_handlers[number] = signal.signal(number, _raise_exit)


def _check_workers(workers: object) -> None:
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ArgumentError(f"workers: must be a whole number of at least 1, got {workers!r:.40}")


def _remove_abandoned() -> None:
    """Remove the folders of clusters whose parent was killed: ours, and with a lock that nobody holds."""
    for lock_path in Path(tempfile.gettempdir()).glob(f"{HOME_PREFIX}*/{LOCK_NAME}"):
        with contextlib.suppress(OSError):
            status = lock_path.parent.lstat()
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if not is_ours or time.time() - lock_path.stat().st_mtime < ABANDONED_AFTER_S:
                continue
            with lock_path.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_path.parent, ignore_errors=True)


def _address(server: Child) -> str:
    """The address from the server's first line. Raises ClusterError where it ends or stays silent."""
    stdout = server.process.stdout
    if stdout is None:
        raise TypeError("the server's standard output is a pipe")
    deadline_s = time.monotonic() + START_TIMEOUT_S
    line = b""
    poll = select.poll()  # and not select: it takes descriptors above 1023 too
    poll.register(stdout, select.POLLIN)
    while not line.endswith(b"\n"):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise ClusterError(f"the server didn't listen within {START_TIMEOUT_S:g} s; is the machine very busy?")
        if not poll.poll(left_s * 1000):
            continue
        part = os.read(stdout.fileno(), 4096)
        if not part:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(STOP_TIMEOUT_S)
            raise ClusterError(str(server.death() or "") or "the server closed its output before it listened")
        line += part
    try:
        return str(json.loads(line)["address"])
    except (ValueError, KeyError, TypeError):
        raise ClusterError(f"the server said {line[:80]!r} where its address was expected") from None


def end_processes(processes: Sequence[subprocess.Popen[bytes]], *, timeout_s: float) -> None:
    """Ask all to end, kill what is left after the time, and reap them all."""
    for process in processes:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        process.terminate()
    deadline_s = time.monotonic() + timeout_s
    for process in processes:
        try:
            process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and the like wait until the end: a second one must not leave behind what is being ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    old = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _raise_exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(128 + number)


def how_ended(code: int, memory: OutOfMemory) -> str:
    """What a process's return code says, as subprocess has it: below 0 it is a signal's number.

    memory: from before the process started."""
    if code >= 0:
        return f"exit status {code}"
    return f"killed by {_signal_name(-code)}" + (memory.words() if -code == signal.SIGKILL else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
