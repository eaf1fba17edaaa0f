"""Training steps of the four-layer network: ours beside PyTorch DDP and other exchanges, and beside no exchange at all.

    python benchmarks/training.py [--quick] [--json] [--configurations A,B] [--peers ddp,ceiling] [--peer-python PYTHON]

Two worker processes with one BLAS thread each, sigmoid, plain SGD. Ours runs as a user's would: `chainrule train` with
a job file and rows beside it. In each round every system runs once, one after the other, so that a busy moment of the
machine meets all of them; a rate is the median over the rounds, with (largest / smallest - 1) as its spread.

samples_per_second is the batch over the median step, for all. Of ours, `samples_per_second_mean` is what the job itself
reports, its start included. The ceiling is our engine in two processes that exchange nothing. Peers that aren't
installed are left out, with the reason; --peer-python names the interpreter that has ray and mpi4py.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from first_step import measure_chainrule, measure_program
from harness import (
    CONFIGURATIONS,
    PEERS,
    Configuration,
    ProgramFailed,
    chainrule,
    end_cleanly,
    environment,
    median,
    ratio,
    run,
    spread,
    supports,
)
from job_files import write_network_job

WORKERS = 2
# What a step takes about, ms: it decides only how many steps make a run of the wanted length.
EXPECTED_STEP_MS = {"A": 0.7, "B": 4.5, "C": 55.0, "D": 190.0, "E": 750.0}
# A run of a slow peer has fewer steps than ours at A and B.
SLOWNESS = {"ddp": 2.0, "rpc": 4.0, "ray": 4.0}
BATCHES = {"A": 64, "B": 32, "C": 8, "D": 4, "E": 2}
FEWEST_STEPS = 6
PEER_NAMES = ("ddp", "ceiling", "mpi", "rpc", "ray")
# In --quick only these run everywhere; the others at A and B alone.
QUICK_EVERYWHERE = ("ddp", "ceiling")
QUICK_BUDGET_S = 200.0
NO_TIME = "left out: --quick has no time left; is the machine busy?"


@dataclass
class Row:
    """The runs of one system at one configuration."""

    system: str
    configuration: Configuration
    shards: int | None
    transport: str | None
    start: Callable[[], dict[str, Any]]
    runs: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""

    def rates(self, name: str = "samples_per_second") -> list[float]:
        """Of each run."""
        return [run_[name] for run_ in self.runs]


def main() -> int:
    """Measure and print."""
    options = _options()
    end_cleanly()
    started_s = time.monotonic()
    absent = _absent(options)
    for name, reason in absent.items():
        _say(options, f"{name} is left out: {reason}")
    with tempfile.TemporaryDirectory(prefix="chainrule-benchmark-") as folder:
        deadline_s = started_s + QUICK_BUDGET_S if options.quick else float("inf")
        header_printed = False
        for number, name in enumerate(options.configurations):
            rows = _rows(CONFIGURATIONS[name], Path(folder), options, absent)
            left = len(options.configurations) - number
            until_s = time.monotonic() + (deadline_s - time.monotonic()) / left
            _measure(rows, rounds=options.rounds, until_s=until_s, deadline_s=deadline_s)
            summaries = _summaries(rows)
            if not options.json and not header_printed:
                header_printed = True
                print("conf system     shards transport     samples/s  spread   step ms  × DDP  × ceiling")
            for summary in summaries:
                print(json.dumps(summary) if options.json else _line(summary), flush=True)
        if options.start_up:
            for summary in _start_up(Path(folder), options, absent):
                print(json.dumps(summary) if options.json else _start_up_line(summary), flush=True)
    _say(options, f"{time.monotonic() - started_s:.0f} s")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under four minutes: shorter runs, fewer peers")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row")
    parser.add_argument("--configurations", type=_names(CONFIGURATIONS), default=list(CONFIGURATIONS), metavar="A,B")
    parser.add_argument("--peers", type=_names(PEER_NAMES), default=list(PEER_NAMES), metavar="ddp,ceiling")
    parser.add_argument("--shards", type=_numbers, default=[2, 8], metavar="2,8", help="of our jobs")
    parser.add_argument("--transports", default="auto", metavar="grpc,shared-memory", help="of our jobs")
    parser.add_argument("--backend", help="of our plans: numpy or numba; left to the job's default if not given")
    parser.add_argument("--rounds", type=int, help="default 5; with --quick 2")
    parser.add_argument("--seconds", type=float, help="of each run; default 6; with --quick 1.5")
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter that has ray and mpi4py")
    parser.add_argument("--no-start-up", dest="start_up", action="store_false", help="without start-up and memory")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1.5 if options.quick else 6.0)
    options.transports = options.transports.split(",")
    return options


def _names(known: Sequence[str] | dict[str, Any]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(known)}")
        return names

    return parse


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _absent(options: argparse.Namespace) -> dict[str, str]:
    """Why peers can't run."""
    needs = {"ddp": "torch", "rpc": "torch", "ray": "ray", "mpi": "mpi4py"}
    absent = {}
    for peer in options.peers:
        python = options.peer_python if peer in ("ray", "mpi") else sys.executable
        if peer in needs:
            found = subprocess.run([python, "-c", f"import {needs[peer]}"], capture_output=True, check=False)
            if found.returncode:
                absent[peer] = f"{needs[peer]} is not installed in {Path(python).name} (see --peer-python)"
        if peer == "mpi" and shutil.which("mpirun") is None:
            absent[peer] = "there is no mpirun"
    return absent


def peer_command(
    peer: str, configuration: Configuration, *, steps: int, python: str, backend: str | None = None
) -> list[str]:
    """The command line of a peer. python: the interpreter for ray and mpi4py."""
    arguments = [*configuration.arguments, f"--workers={WORKERS}", f"--steps={steps}"]
    if peer == "mpi":
        start = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(WORKERS), python]
        return [*start, str(PEERS / "mpi.py"), *arguments]
    if peer == "ray":
        return [python, str(PEERS / "ray_server.py"), *arguments]
    if peer == "ceiling" and backend is not None:
        arguments.append(f"--backend={backend}")
    return [sys.executable, str(PEERS / f"{peer}.py"), *arguments]


def _rows(configuration: Configuration, folder: Path, options: argparse.Namespace, absent: dict[str, str]) -> list[Row]:
    expected_ms = EXPECTED_STEP_MS[configuration.name]
    steps = max(FEWEST_STEPS, round(1000 * options.seconds / expected_ms))
    has_transport = supports("train", "--transport")
    rows = []
    for shards in options.shards:
        for transport in options.transports if has_transport else ["grpc"]:
            job = write_network_job(
                folder, configuration, steps=steps, batches=BATCHES[configuration.name], shards=shards,
                backend=options.backend,
            )  # fmt: skip
            arguments = ["--transport", transport] if has_transport else []
            command = train_command(job, folder, *arguments)
            rows.append(Row("ours", configuration, shards, transport, partial(_ours, command)))
    for peer in options.peers:
        if peer in absent or (options.quick and peer not in QUICK_EVERYWHERE and configuration.name not in "AB"):
            continue
        slowness = SLOWNESS.get(peer, 1.0) if configuration.name in "AB" else 1.0
        command = peer_command(
            peer, configuration, steps=max(FEWEST_STEPS, round(steps / slowness)), python=options.peer_python,
            backend=options.backend,
        )  # fmt: skip
        rows.append(Row(peer, configuration, None, None, partial(run, command)))
    return rows


def train_command(job: Path, folder: Path, *arguments: str) -> list[str]:
    """`chainrule train` for a job, with two workers."""
    return chainrule(
        "train", str(job), f"--workers={WORKERS}", "--json", f"--output={folder / 'model.safetensors'}", *arguments
    )


def _ours(command: list[str]) -> dict[str, Any]:
    answer = run(command, env=environment())
    batch = _batch_of(command)
    answer["samples_per_second_mean"] = answer["samples_per_second"]
    answer["samples_per_second"] = 1000 * batch / answer["step_ms_median"]
    return answer


def _batch_of(command: list[str]) -> int:
    job = next(Path(argument) for argument in command if argument.endswith(".toml"))
    return int(tomllib.loads(job.read_text())["training"]["batch_size"])


def _measure(rows: list[Row], *, rounds: int, until_s: float, deadline_s: float) -> None:
    """Run all rows in turn, round after round: the first round before the deadline, the others where they fit too.

    until_s, deadline_s: as time.monotonic() counts. Where there is a limit, slow peers run once."""
    is_limited = until_s < float("inf")
    took_s: dict[int, float] = {}
    for number in range(rounds):
        again = [row for row in rows if not (number and is_limited and SLOWNESS.get(row.system, 1) > 2)]
        if number and time.monotonic() + sum(took_s.get(id(row), 0.0) for row in again) > until_s:
            break
        for row in again:
            started_s = time.monotonic()
            if row.problem:
                continue
            if not row.runs and started_s > deadline_s:
                row.problem = NO_TIME
            else:
                row.problem = _run_once_or_twice(row)
            took_s[id(row)] = time.monotonic() - started_s


def _run_once_or_twice(row: Row) -> str:
    """Add a run; why there is none. Twice: PyTorch's processes now and then abort while they end."""
    problem = ""
    for _ in range(2):
        try:
            row.runs.append(row.start())
        except ProgramFailed as error:
            problem = str(error)
        else:
            return ""
    return problem


def _summaries(rows: list[Row]) -> list[dict[str, Any]]:
    by_system = {row.system: median(row.rates()) for row in rows}
    return [
        {
            "configuration": row.configuration.name,
            "system": row.system,
            "workers": WORKERS,
            "shards": row.shards,
            "transport": row.runs[0].get("transport", row.transport) if row.runs else row.transport,
            "samples_per_second": median(row.rates()),
            "spread": spread(row.rates()),
            "samples_per_second_mean": median(row.rates("samples_per_second_mean")),
            "step_ms_median": median(row.rates("step_ms_median")),
            "rounds": len(row.runs),
            "ratio_to_ddp": ratio(median(row.rates()), by_system.get("ddp")),
            "ratio_to_ceiling": ratio(median(row.rates()), by_system.get("ceiling")),
            **({"problem": row.problem} if row.problem else {}),
        }
        for row in rows
    ]


def _line(summary: dict[str, Any]) -> str:
    start = f"{summary['configuration']:4} {summary['system']:10} {summary['shards'] or '':>6} {_transport(summary):13}"
    if summary["samples_per_second"] is None:
        return f"{start} {summary['problem']}"
    ratios = "".join(
        "       –" if summary[name] is None else f"{summary[name]:8.2f}"
        for name in ("ratio_to_ddp", "ratio_to_ceiling")
    )
    rate = f"{summary['samples_per_second']:10.0f}  {summary['spread']:5.1%}"
    return f"{start}{rate} {summary['step_ms_median']:9.3f}{ratios}"


def _transport(summary: dict[str, Any]) -> str:
    return str(summary["transport"] or "")


def _start_up(folder: Path, options: argparse.Namespace, absent: dict[str, str]) -> list[dict[str, Any]]:
    """Time from the command to the end of the first step, and memory of all processes in mid-run, at C."""
    configuration = CONFIGURATIONS["C"]
    steps = 60 if options.quick else 100
    job = write_network_job(folder, configuration, steps=steps, batches=BATCHES["C"], shards=2)
    systems: dict[str, Callable[[], dict[str, float]]] = {
        "ours": lambda: measure_chainrule(train_command(job, folder), folder)
    }
    if "ddp" in options.peers and "ddp" not in absent:
        command = peer_command("ddp", configuration, steps=steps, python=options.peer_python)
        systems["ddp"] = lambda: measure_program(command)
    found: dict[str, list[dict[str, float]]] = {system: [] for system in systems}
    for _ in range(1 if options.quick else 3):
        for system, measure in systems.items():
            found[system].append(measure())
    return [
        {
            "measure": "start-up and memory",
            "configuration": configuration.name,
            "system": system,
            "workers": WORKERS,
            "first_step_s": median([run_["first_step_s"] for run_ in runs]),
            "memory_mb": median([run_["memory_mb"] for run_ in runs]),
        }
        for system, runs in found.items()
    ]


def _start_up_line(summary: dict[str, Any]) -> str:
    return (
        f"{summary['configuration']:4} {summary['system']:10} first step after {summary['first_step_s']:.2f} s, "
        f"memory of all processes {summary['memory_mb']:.0f} MB"
    )


def _say(options: argparse.Namespace, line: str) -> None:
    print(line, file=sys.stderr if options.json else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
