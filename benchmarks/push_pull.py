"""One full push and pull: ours over gRPC and over shared memory, beside a raw-socket loop and memcpy.

    python benchmarks/push_pull.py [--quick] [--json] [--sizes 4K,4M] [--workers 1,2,4] [--systems grpc,raw-tcp]

Ours is a whole training with real server and worker processes, whose compute is next to nothing: the loss
(w[0] x[0] - y)² over one row a worker, w as large as wanted. What is left of the compute is the gradient's zeros, one
write of the vector. The step is the job's own median. The raw loop does the same over plain sockets: push all, barrier,
average, update, pull all. memcpy copies the bytes that are pushed and pulled, one after the other.

The last rows are 64 workers that push and pull a model of 1 MB, beside 4: bytes pushed and pulled a second, together.
With 4 workers and 64 shards a worker also adds 16 partial sums; with 4 shards it only pushes and pulls.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    PEERS,
    ProgramFailed,
    answer_of,
    chainrule,
    end_cleanly,
    environment,
    median,
    ratio,
    run,
    spread,
    started,
    supports,
)
from job_files import write_job, write_rows

SIZES = {"4K": 4 << 10, "256K": 256 << 10, "4M": 4 << 20, "32M": 32 << 20, "128M": 128 << 20}
SYSTEMS = ("grpc", "grpc-unix", "shared-memory", "raw-tcp", "raw-unix", "memcpy")
STEPS = {"4K": 2000, "256K": 600, "4M": 60, "32M": 16, "128M": 6}
QUICK_STEPS = {"4K": 800, "256K": 200, "4M": 30, "32M": 8, "128M": 4}
MANY_WORKERS = 64
FEW_WORKERS = 4
MANY_BYTES = 1 << 20
MANY_STEPS = 60
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Case:
    """One vector's size and a number of workers."""

    size: str
    size_bytes: int
    workers: int
    shards: int
    steps: int


def main() -> int:
    """Measure and print."""
    options = _options()
    end_cleanly()
    started_s = time.monotonic()
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    _say(options, f"TCP congestion control: {congestion.read_text().strip() if congestion.exists() else 'unknown'}")
    unavailable = _unavailable()
    for system in options.systems:
        if system in unavailable:
            _say(options, f"{system} is left out: {unavailable[system]}")
    systems = [system for system in options.systems if system not in unavailable]
    with tempfile.TemporaryDirectory(prefix="chainrule-benchmark-") as folder:
        for summary in _all_rows(Path(folder), systems, options):
            print(json.dumps(summary) if options.json else _line(summary), flush=True)
    _say(options, f"{time.monotonic() - started_s:.0f} s")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under four minutes: shorter runs, one round")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row")
    parser.add_argument("--sizes", type=_list, default=list(SIZES), metavar="4K,4M")
    parser.add_argument("--workers", type=_list, default=["1", "2", "4"], metavar="1,2,4")
    parser.add_argument("--systems", type=_list, default=list(SYSTEMS), metavar="grpc,raw-tcp")
    parser.add_argument("--rounds", type=int, help="default 3; with --quick 1")
    parser.add_argument("--no-many", dest="many", action="store_false", help=f"without {MANY_WORKERS} workers")
    options = parser.parse_args()
    for given, known in ((options.sizes, SIZES), (options.systems, SYSTEMS), (options.workers, ("1", "2", "4"))):
        for name in given:
            if name not in known:
                parser.error(f"there is no {name!r}; there are {', '.join(known)}")
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def _list(text: str) -> list[str]:
    return text.split(",")


def _unavailable() -> dict[str, str]:
    """Why systems can't run."""
    reasons = {}
    if not supports("train", "--transport"):
        reasons["shared-memory"] = "chainrule train has no --transport here"
    return reasons


def _all_rows(folder: Path, systems: list[str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    steps = QUICK_STEPS if options.quick else STEPS
    for size in options.sizes:
        for workers in map(int, options.workers):
            case = Case(size, SIZES[size], workers, workers, steps[size])
            yield from _measured(folder, case, systems, rounds=options.rounds)
    if options.many:
        transports = [system for system in systems if system in ("grpc", "shared-memory")]
        for workers, shards in ((FEW_WORKERS, FEW_WORKERS), (FEW_WORKERS, MANY_WORKERS), (MANY_WORKERS, MANY_WORKERS)):
            case = Case("1M", MANY_BYTES, workers, shards, MANY_STEPS)
            yield from _measured(folder, case, transports, rounds=options.rounds)


def _measured(folder: Path, case: Case, systems: list[str], *, rounds: int) -> list[dict[str, Any]]:
    """A row for each system. Each round runs all of them, one after the other."""
    starts: dict[str, Callable[[], float]] = {}
    for system in systems:
        if system == "memcpy":
            starts[system] = partial(_memcpy_ms, case)
        elif system.startswith("raw-"):
            starts[system] = partial(_raw_ms, case, system.removeprefix("raw-"))
        else:
            starts[system] = partial(_our_ms, folder, case, system)
    times_ms: dict[str, list[float]] = {system: [] for system in systems}
    problems: dict[str, str] = {}
    for _ in range(rounds):
        for system, start in starts.items():
            if system not in problems:
                try:
                    times_ms[system].append(start())
                except ProgramFailed as error:
                    problems[system] = str(error)
    medians = {system: median(times) for system, times in times_ms.items()}
    moved = 2 * case.size_bytes * case.workers
    return [
        {
            "size": case.size,
            "size_bytes": case.size_bytes,
            "workers": case.workers,
            "shards": case.shards,
            "system": system,
            "step_ms": step_ms,
            "spread": spread(times_ms[system]),
            "bytes_per_second": None if step_ms is None else moved / step_ms * 1000,
            "rate_to_raw_tcp": ratio(medians.get("raw-tcp"), step_ms),
            "rate_to_grpc": ratio(medians.get("grpc"), step_ms),
            **({"problem": problems[system]} if system in problems else {}),
        }
        for system, step_ms in medians.items()
    ]


def _our_ms(folder: Path, case: Case, transport: str) -> float:
    """The median step of a training over a transport, ms."""
    batches = min(case.steps, 64)
    data = f"rows-{case.shards}-{batches}"
    if not (folder / f"{data}.npz").exists():
        write_rows(folder, data, row_count=case.shards * batches, features=1)
    job = write_job(
        folder / f"{case.size}-{case.workers}-{case.shards}.toml",
        model='loss = "(w[0] * x[0] - y)**2"',
        parameters={"w": f'{{ shape = [{case.size_bytes // 4}], initializer = "zeros" }}'},
        data=data,
        epochs=max(1, round(case.steps / batches)),
        batch_size=case.shards,
        shards=case.shards,
        min_workers=case.workers,
    )
    if transport == "grpc-unix":
        return _our_ms_over_unix(folder, job, case.workers)
    command = chainrule(
        "train", str(job), f"--workers={case.workers}", "--json", f"--output={folder / 'model.safetensors'}"
    )
    if supports("train", "--transport"):
        command.append(f"--transport={transport}")
    return float(run(command, env=environment(), timeout_s=TIMEOUT_S)["step_ms_median"])


def _our_ms_over_unix(folder: Path, job: Path, worker_count: int) -> float:
    """The same with a server that listens on a Unix socket too, and workers that connect there."""
    socket = folder / "grpc.socket"
    serve = _process(
        "chainrule_server", "--port=0", f"--socket={socket}", f"--home={folder / 'home'}", f"--data-root={folder}"
    )
    with started(serve, stdin=subprocess.PIPE, env=environment()) as serving, contextlib.ExitStack() as running:
        line = serving.stdout.readline() if serving.stdout is not None else ""
        if not line:
            answer_of(serving, timeout_s=10)
        for number in range(worker_count):
            work = _process(
                "chainrule_worker", f"--server=unix:{socket}", f"--name=worker-{number}", "--transport=grpc"
            )
            running.enter_context(started(work, stdin=subprocess.PIPE, env=environment()))
        address = json.loads(line)["address"]
        submit = chainrule("submit", str(job), "--watch", "--json", f"--server={address}")
        answer = run(submit, env=environment(), timeout_s=TIMEOUT_S)
    return float(answer["result"]["step_ms_median"])


def _process(module: str, *options: str) -> list[str]:
    return [sys.executable, "-m", module, *options, "--exit-with-stdin"]


def _raw_ms(case: Case, family: str) -> float:
    """The median step of the raw-socket loop, ms."""
    command = [
        sys.executable, str(PEERS / "raw_sockets.py"), f"--family={family}", f"--elements={case.size_bytes // 4}",
        f"--workers={case.workers}", f"--steps={case.steps}",
    ]  # fmt: skip
    return float(run(command, timeout_s=TIMEOUT_S)["step_ms_median"])


def _memcpy_ms(case: Case) -> float:
    """The median time of copying the vector twice for each worker into memory that is there already, ms."""
    source, target = np.ones(case.size_bytes, np.uint8), np.zeros(case.size_bytes, np.uint8)
    times_s = []
    for _ in range(max(5, case.steps // 4)):
        started_s = time.perf_counter()
        for _ in range(2 * case.workers):
            target[:] = source
        times_s.append(time.perf_counter() - started_s)
    return 1000 * statistics.median(times_s)


def _line(summary: dict[str, Any]) -> str:
    start = f"{summary['size']:>5} {summary['workers']:3} workers {summary['shards']:3} shards {summary['system']:14}"
    if summary["step_ms"] is None:
        return f"{start} {summary['problem']}"
    parts = [f"{start}{summary['step_ms']:10.3f} ms {summary['bytes_per_second'] / 1e9:7.3f} GB/s"]
    for name, text in (("rate_to_raw_tcp", "× raw TCP"), ("rate_to_grpc", "× gRPC")):
        if summary[name] is not None:
            parts.append(f"{summary[name]:8.2f} {text}")
    return " ".join([*parts, f"  ±{summary['spread']:.0%}"])


def _say(options: argparse.Namespace, line: str) -> None:
    print(line, file=sys.stderr if options.json else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
