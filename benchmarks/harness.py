"""What the benchmarks of several processes share: the environment, programs that answer in JSON, memory, medians."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers"
STARTED_VARIABLE = "CHAINRULE_BENCHMARK_STARTED_S"
STOP_TIMEOUT_S = 5.0
# One BLAS thread in each process; the BLAS picks the kernels of this processor, whatever a shell says.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
REMOVED_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class ProgramFailed(RuntimeError):
    """A program that ended with an error, gave no JSON or took too long; the message says which, and its last words."""


@dataclass(frozen=True)
class Configuration:
    """The four-layer network: rows of a step over all workers, features, and units of each hidden layer."""

    name: str
    batch: int
    features: int
    hidden: int

    @property
    def parameter_count(self) -> int:
        """The elements of V1, V2, V3 and w together."""
        return self.hidden * (self.features + 2 * self.hidden + 1)

    @property
    def arguments(self) -> list[str]:
        """As the peers' programs take it."""
        return [f"--batch={self.batch}", f"--features={self.features}", f"--hidden={self.hidden}"]


CONFIGURATIONS = {
    configuration.name: configuration
    for configuration in (
        Configuration("A", 64, 16, 64),
        Configuration("B", 512, 64, 256),
        Configuration("C", 512, 256, 1024),
        Configuration("D", 2048, 512, 1024),
        Configuration("E", 2048, 1024, 2048),
    )
}


def environment(**more: str) -> dict[str, str]:
    """The environment of every program that is measured."""
    kept = {name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES}
    return kept | dict.fromkeys(THREAD_VARIABLES, "1") | more


def end_cleanly() -> None:
    """Let ctrl-C, SIGTERM and SIGHUP end the benchmark through its `finally` and `with`, and without a traceback."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def chainrule(*arguments: str) -> list[str]:
    """The command line of this checkout's `chainrule`, under the interpreter that runs the benchmark."""
    return [sys.executable, "-m", "chainrule", *arguments]


@functools.cache
def supports(command: str, option: str) -> bool:
    """Whether a command of chainrule has an option."""
    done = subprocess.run(
        chainrule(command, "--help"),
        cwd=REPOSITORY, env=environment(COLUMNS="200"), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return option in done.stdout


@contextlib.contextmanager
def started(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: int | None = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    """A running program, its standard output and error piped; what is left of it and its children ends with the block.

    It stands in the repository, so that modules of ours are found by an interpreter that has them not installed."""
    environment_ = dict(environment() if env is None else env)
    environment_[STARTED_VARIABLE] = repr(time.time())
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY, env=environment_, text=True, start_new_session=True,
        stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        # Asked first: `chainrule train` then ends its children, which have sessions of their own.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def answer_of(process: subprocess.Popen[str], *, timeout_s: float) -> dict[str, Any]:
    """The JSON of the last line that a program prints. Raises ProgramFailed."""
    words = [process.args] if isinstance(process.args, str | bytes | os.PathLike) else process.args
    name = " ".join(Path(str(word)).name for word in words)[:120]
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise ProgramFailed(f"{name}: no answer within {timeout_s:g} s") from None
    lines = out.strip().splitlines()
    if process.returncode == 0 and lines:
        try:
            return dict(json.loads(lines[-1]))
        except ValueError:
            pass
    last = " | ".join((err.strip() or out.strip()).splitlines()[-3:])
    raise ProgramFailed(f"{name}: exit status {process.returncode}: {last[-600:]}")


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 300.0) -> dict[str, Any]:
    """Run a program to its end and return its JSON. Raises ProgramFailed."""
    with started(command, env=env) as process:
        return answer_of(process, timeout_s=timeout_s)


def process_tree(root: int) -> list[int]:
    """A process and all its living descendants, whatever sessions they are in."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name in brackets may hold spaces and brackets of its own.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def tree_memory_mb(root: int) -> float:
    """Memory of a process and its descendants: their proportional set sizes together, so shared pages count once."""
    total_kb = 0
    for process in process_tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kb += int(line.split()[1])
    return total_kb / 1024


class MemoryPeak:
    """The largest memory of a process and its descendants that was seen during a `with`: `memory_mb` after it."""

    def __init__(self, root: int, *, interval_s: float = 0.3) -> None:
        self.memory_mb = 0.0
        self._root, self._interval_s = root, interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.memory_mb = max(self.memory_mb, tree_memory_mb(self._root))


def median(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None


def spread(values: Sequence[float]) -> float | None:
    """The largest value over the smallest, minus 1; None of nothing."""
    return max(values) / min(values) - 1 if values else None


def ratio(value: float | None, other: float | None) -> float | None:
    """value / other; None where either is missing."""
    return value / other if value is not None and other else None
