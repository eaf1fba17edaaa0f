"""Training over slow links: a server and two workers as three machines, beside PyTorch DDP over the same links.

    python benchmarks/network.py [--quick] [--json] [--rates 1gbit,100mbit] [--systems bfloat16,ddp]

The machines are network namespaces whose links `tc tbf` holds to a rate in each direction; it needs root, and elsewhere
says so and ends. Configuration C, shards = 2, plain SGD; ours in float32, bfloat16 and int8 on the wire, always over
gRPC; DDP with gloo, plain and with its bfloat16 hook. One server has one link for all workers, where a ring has one for
each. samples_per_second is the batch over the median step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import (
    CONFIGURATIONS,
    PEERS,
    Configuration,
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
from job_files import write_network_job
from namespaces import INTERFACE, Machine, NotPossible, machines, why_not

WORKERS = 2
SHARDS = 2
BATCHES = 2
PORT = 50051
RATES = ("1gbit", "100mbit")
SYSTEMS = ("float32", "bfloat16", "int8", "ddp", "ddp-bfloat16")
STEPS = {"1gbit": 40, "100mbit": 12}
QUICK_STEPS = {"1gbit": 14, "100mbit": 6}
TIMEOUT_S = 240.0


def main() -> int:
    """Measure and print."""
    options = _options()
    end_cleanly()
    reason = why_not()
    if reason is not None:
        return _skipped(reason)
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chainrule-benchmark-") as folder:
        for rate in options.rates:
            try:
                with machines(1 + WORKERS, rate=rate) as (server, *workers):
                    for summary in _measured(server, workers, rate, Path(folder), options):
                        print(json.dumps(summary) if options.json else _line(summary), flush=True)
            except NotPossible as error:
                return _skipped(str(error))
    print(f"{time.monotonic() - started_s:.0f} s", file=sys.stderr if options.json else sys.stdout)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under four minutes: fewer steps, one round")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row")
    parser.add_argument("--rates", type=lambda text: text.split(","), default=list(RATES), metavar="1gbit,100mbit")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS), metavar="int8,ddp")
    parser.add_argument("--rounds", type=int, help="default 3; with --quick 1")
    options = parser.parse_args()
    for given, known in ((options.rates, RATES), (options.systems, SYSTEMS)):
        for name in given:
            if name not in known:
                parser.error(f"there is no {name!r}; there are {', '.join(known)}")
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def _skipped(reason: str) -> int:
    print(f"benchmarks/network.py is skipped: {reason}", file=sys.stderr)
    return 0


def _measured(
    server: Machine, workers: Sequence[Machine], rate: str, folder: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each system over links of this rate. Each round runs all of them, one after the other."""
    configuration = CONFIGURATIONS["C"]
    steps = (QUICK_STEPS if options.quick else STEPS)[rate]
    starts: dict[str, Callable[[], float]] = {}
    for system in options.systems:
        if system.startswith("ddp"):
            more = ["--bfloat16"] if system == "ddp-bfloat16" else []
            starts[system] = partial(_ddp_ms, workers, configuration, steps, more)
        else:
            starts[system] = partial(_our_ms, server, workers, configuration, steps, system, folder)
    times_ms: dict[str, list[float]] = {system: [] for system in starts}
    problems: dict[str, str] = {}
    for _ in range(options.rounds):
        for system, start in starts.items():
            if system not in problems:
                try:
                    times_ms[system].append(start())
                except ProgramFailed as error:
                    problems[system] = str(error)
    rates = {
        system: None if (step_ms := median(times)) is None else 1000 * configuration.batch / step_ms
        for system, times in times_ms.items()
    }
    return [
        {
            "rate": rate,
            "configuration": configuration.name,
            "system": system,
            "workers": WORKERS,
            "shards": None if system.startswith("ddp") else SHARDS,
            "step_ms_median": median(times_ms[system]),
            "spread": spread(times_ms[system]),
            "samples_per_second": value,
            "ratio_to_ddp": ratio(value, rates.get("ddp")),
            "ratio_to_ddp_bfloat16": ratio(value, rates.get("ddp-bfloat16")),
            **({"problem": problems[system]} if system in problems else {}),
        }
        for system, value in rates.items()
    ]


def _our_ms(
    server: Machine, workers: Sequence[Machine], configuration: Configuration, steps: int, precision: str, folder: Path
) -> float:
    """The median step of a job at a server on one machine with a worker on each of the others, ms."""
    job = write_network_job(
        folder, configuration, steps=steps, batches=BATCHES, shards=SHARDS, min_workers=WORKERS,
        precision=None if precision == "float32" else precision,
    )  # fmt: skip
    address = f"{server.address}:{PORT}"
    # They share this machine's memory, which three machines wouldn't.
    grpc_alone = ["--transport=grpc"] if supports("server", "--transport") else []
    # Not by `chainrule server`: they end with their standard input, and so with a benchmark that is killed.
    serve = _process(
        "chainrule_server", f"--host={server.address}", f"--port={PORT}", "--insecure", f"--home={folder / 'home'}",
        f"--data-root={folder}", *grpc_alone,
    )  # fmt: skip
    with started(server.inside(serve), stdin=subprocess.PIPE) as serving, contextlib.ExitStack() as running:
        if serving.stdout is None or not serving.stdout.readline():
            answer_of(serving, timeout_s=10)
        for number, machine in enumerate(workers):
            work = _process("chainrule_worker", f"--server={address}", f"--name=worker-{number}")
            running.enter_context(started(machine.inside(work), stdin=subprocess.PIPE))
        submit = chainrule("submit", str(job), "--watch", "--json", f"--server={address}")
        answer = run(server.inside(submit), env=environment(), timeout_s=TIMEOUT_S)
    return float(answer["result"]["step_ms_median"])


def _process(module: str, *options: str) -> list[str]:
    return [sys.executable, "-m", module, *options, "--exit-with-stdin"]


def _ddp_ms(workers: Sequence[Machine], configuration: Configuration, steps: int, more: list[str]) -> float:
    """The median step of DDP with a process on each worker's machine, ms."""
    # Over slow links a warm-up of many steps would only wait.
    arguments = [*configuration.arguments, f"--workers={len(workers)}", f"--steps={steps}", "--warm-up=2", *more]
    with contextlib.ExitStack() as running:
        processes = [
            running.enter_context(
                started(
                    machine.inside([sys.executable, str(PEERS / "ddp.py"), *arguments, f"--rank={rank}"]),
                    env=environment(
                        MASTER_ADDR=workers[0].address, MASTER_PORT=str(PORT), GLOO_SOCKET_IFNAME=INTERFACE
                    ),
                )
            )
            for rank, machine in enumerate(workers)
        ]
        return float(answer_of(processes[0], timeout_s=TIMEOUT_S)["step_ms_median"])


def _line(summary: dict[str, Any]) -> str:
    start = f"{summary['rate']:8} {summary['system']:13}"
    if summary["samples_per_second"] is None:
        return f"{start} {summary['problem']}"
    parts = [f"{start}{summary['samples_per_second']:9.0f} samples/s {summary['step_ms_median']:10.1f} ms"]
    for name, text in (("ratio_to_ddp", "× DDP"), ("ratio_to_ddp_bfloat16", "× DDP with bfloat16")):
        if summary[name] is not None:
            parts.append(f"{summary[name]:6.2f} {text}")
    return " ".join([*parts, f"  ±{summary['spread']:.0%}"])


if __name__ == "__main__":
    sys.exit(main())
