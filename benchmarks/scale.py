"""Machines times processes over slow links: what a step costs, what each link carries, beside PyTorch DDP.

    python benchmarks/scale.py [--layouts 2x1,2x4] [--rate 1gbit] [--precision bfloat16] [--quick] [--json FILE]

The machines are network namespaces whose links `tc tbf` holds to a rate; it needs root, and elsewhere says so and ends.
A vector of 2.23 MB and a row for each of 16 shards, so that only the exchange counts. The server has a machine of its
own; on each other one runs `chainrule worker --workers P`. DDP runs in both of its forms, a process for each core and a
process for each machine with as many threads. Each system first makes a short run, whose bytes and processor time are
taken off the others': what is left is of the steps alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import (
    PEERS,
    Configuration,
    MemoryPeak,
    ProgramFailed,
    answer_of,
    chainrule,
    end_cleanly,
    environment,
    process_tree,
    run,
    started,
    tree_memory_mb,
)
from job_files import write_network_job
from namespaces import INTERFACE, LinkBytes, Machine, NotPossible, machines, why_not
from scale_table import (
    BITS_OF_RATE,
    DDP_BFLOAT16,
    DDP_THREADS,
    LAYOUTS,
    OURS,
    SYSTEMS,
    Layout,
    Run,
    hash_sentence,
    hashes_of,
    layout_of,
    row_of,
    table,
    with_ratios,
)

# 557,568 parameters: 2.23 MB. A row for each shard, and a shard for each worker of the largest layout.
CONFIGURATION = Configuration("scale", batch=16, features=64, hidden=512)
SHARDS = 16
VECTOR_BYTES = 4 * CONFIGURATION.parameter_count
PORT = 50051
SHORT_STEPS = 2
STEPS, QUICK_STEPS = 10, 5
QUICK_LAYOUTS = (Layout(2, 1), Layout(2, 4))
TIMEOUT_S = 240.0
PRECISIONS = ("float32", "bfloat16", "int8")


def main() -> int:
    """Measure and print."""
    options = _options()
    end_cleanly()
    reason = why_not() or (None if shutil.which("setpriv") else "there is no setpriv; apt-get install util-linux")
    if reason is not None:
        return _skipped(reason)
    if importlib.util.find_spec("torch") is None and options.systems != [OURS]:
        print("DDP is left out: PyTorch is not installed here; pip install torch", file=sys.stderr)
        options.systems = [system for system in options.systems if system == OURS]
        if not options.systems:
            return _skipped("no system is left to measure")
    load, started_s = os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chainrule-benchmark-") as folder:
        try:
            measured = [row for layout in options.layouts for row in _measured(layout, Path(folder), options)]
        except NotPossible as error:
            return _skipped(str(error))
    rows = with_ratios(measured, vector_bytes=VECTOR_BYTES, rate=options.rate)
    is_promised = options.precision != "int8"
    print(table(rows))
    print(hash_sentence(rows, is_promised=is_promised))
    print(f"{options.rate}, {options.precision}, load {load:.1f} before, {time.monotonic() - started_s:.0f} s")
    if options.json is not None:
        answer = {"rate": options.rate, "precision": options.precision, "load_before": load, "rows": rows}
        options.json.write_text(json.dumps(answer, indent=2) + "\n")
    has_failed = any("problem" in row for row in rows) or (is_promised and len(hashes_of(rows)) > 1)
    return 1 if has_failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(map(str, QUICK_LAYOUTS))}, one round")
    parser.add_argument("--layouts", metavar="2x1,4x4", help="machines x processes; default all")
    parser.add_argument("--systems", default=",".join(SYSTEMS), metavar=",".join(SYSTEMS))
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of ours, on the wire")
    parser.add_argument("--rate", choices=tuple(BITS_OF_RATE), default="100mbit", help="of each link, each direction")
    parser.add_argument("--rounds", type=int, help="default 3; with --quick 1")
    parser.add_argument("--steps", type=int, help=f"of each run, above {SHORT_STEPS}; default {STEPS} or {QUICK_STEPS}")
    parser.add_argument("--bucket-mb", type=float, help="of DDP; default: PyTorch's own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the rows, too")
    options = parser.parse_args()
    try:
        named = None if options.layouts is None else [layout_of(text) for text in options.layouts.split(",")]
    except ValueError as error:
        parser.error(str(error))
    options.layouts = named or list(QUICK_LAYOUTS if options.quick else LAYOUTS)
    options.systems = options.systems.split(",")
    for system in options.systems:
        if system not in SYSTEMS:
            parser.error(f"there is no system {system!r}; there are {', '.join(SYSTEMS)}")
    options.rounds = (1 if options.quick else 3) if options.rounds is None else options.rounds
    options.steps = (QUICK_STEPS if options.quick else STEPS) if options.steps is None else options.steps
    if options.rounds < 1 or options.steps <= SHORT_STEPS:
        parser.error(f"--rounds must be at least 1 and --steps more than {SHORT_STEPS}")
    return options


def _skipped(reason: str) -> int:
    print(f"benchmarks/scale.py is skipped: {reason}", file=sys.stderr)
    return 0


def _measured(layout: Layout, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each system. Each round runs all of them, one after the other; the first is the short one."""
    runs: dict[str, list[Run]] = {system: [] for system in options.systems}
    problems: dict[str, str] = {}
    with machines(1 + layout.machines, rate=options.rate) as (server, *workers):
        for number in range(1 + options.rounds):
            for system in options.systems:
                if system in problems:
                    continue
                steps = SHORT_STEPS if number == 0 else options.steps
                print(f"{layout} {system}: round {number}, {steps} steps", file=sys.stderr, flush=True)
                try:
                    if system == OURS:
                        done = _our_run(server, workers, layout, steps, options.precision, folder)
                    else:
                        done = _ddp_run(system, server, workers, layout, steps, options.bucket_mb, looks=number == 0)
                except ProgramFailed as error:
                    problems[system] = str(error)
                else:
                    runs[system].append(done)
    return [
        {"layout": str(layout), "system": system, "problem": problems[system]}
        if system in problems
        else row_of(layout, system, runs[system][1:], runs[system][0])
        for system in options.systems
    ]


def _our_run(
    server: Machine, workers: Sequence[Machine], layout: Layout, steps: int, precision: str, folder: Path
) -> Run:
    """A job at a server on one machine with worker processes on each of the others.

    The transport is the default: a server's local link is an abstract Unix socket, which is of one network namespace,
    so the workers in another find none and take gRPC, as on another machine."""
    # One epoch, so that no run has more ends of epochs than another.
    job = write_network_job(
        folder, CONFIGURATION, steps=steps, batches=steps, shards=SHARDS, min_workers=layout.workers,
        precision=None if precision == "float32" else precision,
    )  # fmt: skip
    address = f"{server.address}:{PORT}"
    serve = [
        sys.executable, "-m", "chainrule_server", f"--host={server.address}", f"--port={PORT}", "--insecure",
        f"--data-root={folder}", "--exit-with-stdin",
    ]  # fmt: skip
    with contextlib.ExitStack() as running:
        home = running.enter_context(tempfile.TemporaryDirectory(dir=folder))
        serving = running.enter_context(started(server.inside([*serve, f"--home={home}"]), stdin=subprocess.PIPE))
        if serving.stdout is None or not serving.stdout.readline():
            answer_of(serving, timeout_s=10)
        before = [machine.link_bytes() for machine in (server, *workers)]
        working = [
            running.enter_context(
                started(_inside(machine, chainrule("worker", f"--workers={layout.processes}", f"--server={address}")))
            )
            for machine in workers
        ]
        submit = chainrule("submit", str(job), "--watch", "--json", f"--server={address}")
        result = run(server.inside(submit), env=environment(), timeout_s=TIMEOUT_S)["result"]
        processor_s = sum(map(_processor_s, (serving.pid, *(process.pid for process in working))))
        memory_mb = tree_memory_mb(working[0].pid)
        links = [machine.link_bytes().since(then) for machine, then in zip((server, *workers), before, strict=True)]
    return _run_of(
        steps, float(result["step_ms_median"]), links, processor_s, memory_mb, str(result["parameters_sha256"])
    )


def _ddp_run(
    system: str, server: Machine, workers: Sequence[Machine], layout: Layout, steps: int, bucket_mb: float | None,
    *, looks: bool,
) -> Run:  # fmt: skip
    """DDP with gloo. looks: at the memory, which costs processor time."""
    processes, threads = (1, layout.processes) if system == DDP_THREADS else (layout.processes, 1)
    arguments = [
        *CONFIGURATION.arguments, f"--workers={len(workers) * processes}", f"--steps={steps}", "--warm-up=2",
        f"--threads={threads}", *(["--bfloat16"] if system == DDP_BFLOAT16 else []),
        *([] if bucket_mb is None else [f"--bucket-mb={bucket_mb}"]),
    ]  # fmt: skip
    env = environment(MASTER_ADDR=workers[0].address, MASTER_PORT=str(PORT), GLOO_SOCKET_IFNAME=INTERFACE)
    before = [machine.link_bytes() for machine in (server, *workers)]
    with contextlib.ExitStack() as running:
        ranks = [
            running.enter_context(
                started(
                    _inside(machine, [sys.executable, str(PEERS / "ddp.py"), *arguments, f"--rank={first + number}"]),
                    env=env,
                )
            )
            for first, machine in zip(range(0, len(workers) * processes, processes), workers, strict=True)
            for number in range(processes)
        ]
        peaks = [running.enter_context(MemoryPeak(rank.pid)) for rank in ranks[:processes]] if looks else []
        answers = [answer_of(rank, timeout_s=TIMEOUT_S) for rank in ranks]
    links = [machine.link_bytes().since(then) for machine, then in zip((server, *workers), before, strict=True)]
    memory_mb = sum(peak.memory_mb for peak in peaks) if looks else None
    # Each rank's own count of its timed steps: importing PyTorch costs thousands of times a step, and never the same.
    processor_s = sum(float(answer["processor_s"]) for answer in answers)
    return _run_of(steps, float(answers[0]["step_ms_median"]), links, processor_s, memory_mb, None)


def _inside(machine: Machine, command: Sequence[str]) -> list[str]:
    """The command there. It ends with the benchmark, also when that is killed."""
    return machine.inside(["setpriv", "--pdeathsig", "TERM", *command])


def _run_of(
    steps: int, step_ms: float, links: Sequence[LinkBytes], processor_s: float, memory_mb: float | None,
    sha256: str | None,
) -> Run:  # fmt: skip
    server, *workers = links
    return Run(
        steps=steps,
        step_ms=step_ms,
        sent_bytes=tuple(link.sent for link in workers),
        received_bytes=tuple(link.received for link in workers),
        server_sent_bytes=server.sent,
        server_received_bytes=server.received,
        processor_s=processor_s,
        memory_mb=memory_mb,
        sha256=sha256,
    )


def _processor_s(root: int) -> float:
    """What a living process and its living descendants have used."""
    ticks = 0
    for process in process_tree(root):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(words[11]) + int(words[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
