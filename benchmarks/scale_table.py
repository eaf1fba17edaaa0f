"""The pure parts of scale.py: layouts, the wire's limit, rows made of measured runs, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import median, ratio

OURS = "ours"
DDP_PROCESSES = "ddp-processes"
DDP_THREADS = "ddp-threads"
DDP_BFLOAT16 = "ddp-bfloat16"
SYSTEMS = (OURS, DDP_PROCESSES, DDP_THREADS, DDP_BFLOAT16)
BITS_OF_RATE = {"100mbit": 100e6, "1gbit": 1e9}


@dataclass(frozen=True)
class Layout:
    """So many machines with so many worker processes on each; the server is on another machine."""

    machines: int
    processes: int

    @property
    def workers(self) -> int:
        """All worker processes."""
        return self.machines * self.processes

    def __str__(self) -> str:
        return f"{self.machines}x{self.processes}"


LAYOUTS = tuple(Layout(*pair) for pair in ((1, 4), (2, 1), (2, 4), (4, 1), (4, 4)))


@dataclass(frozen=True)
class Run:
    """One run of one system: totals from its start to its end. sha256: of our parameters, None for others.

    sent_bytes, received_bytes: of each machine's link, the workers' in order. memory_mb: of the first machine."""

    steps: int
    step_ms: float
    sent_bytes: tuple[int, ...]
    received_bytes: tuple[int, ...]
    server_sent_bytes: int
    server_received_bytes: int
    processor_s: float
    memory_mb: float | None = None
    sha256: str | None = None


def layout_of(text: str) -> Layout:
    """The layout that '2x4' means, one of LAYOUTS. Raises ValueError."""
    for layout in LAYOUTS:
        if str(layout) == text.strip().replace("×", "x"):
            return layout
    raise ValueError(f"there is no layout {text!r}; there are {', '.join(map(str, LAYOUTS))}")


def wire_limit_bytes(machines: int, vector_bytes: int) -> float:
    """What each machine must send and receive for a step in each direction at the least, 2·M·(N-1)/N."""
    return 2 * vector_bytes * (machines - 1) / machines


def wire_limit_ms(machines: int, vector_bytes: int, rate: str) -> float:
    """How long a link of this rate takes for wire_limit_bytes, without headers."""
    return 1000 * 8 * wire_limit_bytes(machines, vector_bytes) / BITS_OF_RATE[rate]


def row_of(layout: Layout, system: str, runs: Sequence[Run], short: Run) -> dict[str, Any]:
    """What `runs` say of a step. What the start and the end cost is taken off by `short`, a run of fewer steps."""
    times_ms = [run.step_ms for run in runs]

    def each_step(name: str) -> list[float]:
        return [(getattr(run, name) - getattr(short, name)) / (run.steps - short.steps) for run in runs]

    def worst_link(name: str) -> float | None:
        return median(
            [
                max(
                    (long - less) / (run.steps - short.steps)
                    for long, less in zip(getattr(run, name), getattr(short, name), strict=True)
                )
                for run in runs
            ]
        )

    return {
        "layout": str(layout),
        "system": system,
        "step_ms_median": median(times_ms),
        "step_ms_min": min(times_ms),
        "step_ms_max": max(times_ms),
        "sent_bytes": worst_link("sent_bytes"),
        "received_bytes": worst_link("received_bytes"),
        "server_sent_bytes": median(each_step("server_sent_bytes")),
        "server_received_bytes": median(each_step("server_received_bytes")),
        "processor_ms": 1000 * sum(each_step("processor_s")) / len(runs),
        "memory_mb": short.memory_mb,
        "sha256": sorted({run.sha256 for run in runs if run.sha256 is not None}),
    }


def with_ratios(rows: Sequence[Mapping[str, Any]], *, vector_bytes: int, rate: str) -> list[dict[str, Any]]:
    """The rows with the wire's limit and with how many times as fast as DDP each is, in each of its forms."""
    times = {(row["layout"], row["system"]): row.get("step_ms_median") for row in rows}
    done = []
    for row in rows:
        layout = layout_of(row["layout"])
        more = {
            f"ratio_to_{peer.replace('-', '_')}": ratio(times.get((row["layout"], peer)), row.get("step_ms_median"))
            for peer in SYSTEMS[1:]
        }
        done.append(
            {
                **row,
                **more,
                "limit_bytes": wire_limit_bytes(layout.machines, vector_bytes),
                "limit_ms": wire_limit_ms(layout.machines, vector_bytes, rate),
            }
        )
    return done


def hashes_of(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """The hashes of all our runs."""
    return {sha256 for row in rows for sha256 in row.get("sha256", ())}


def hash_sentence(rows: Sequence[Mapping[str, Any]], *, is_promised: bool) -> str:
    """Whether all layouts gave the same bits, in words. is_promised: not under int8."""
    ours = [row for row in rows if row["system"] == OURS and row.get("sha256")]
    if not ours:
        return "no run of ours, no hash"
    found = hashes_of(ours)
    if len(found) == 1:
        return f"one SHA-256 for {', '.join(row['layout'] for row in ours)}: {found.pop()}"
    told = "; ".join(f"{row['layout']} {' '.join(digest[:12] for digest in row['sha256'])}" for row in ours)
    return f"{'DIFFERENT HASHES' if is_promised else 'hashes differ, as int8 may'}: {told}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of with_ratios as Markdown. Bytes are MB a step and the most that a machine's link carried."""
    titles = (
        "machines × processes", "system", "ms a step (min-max)", "× DDP, processes", "× DDP, threads", "limit, ms",
        "MB sent", "MB received", "limit, MB", "server MB sent / received", "processor, ms", "machine's memory, MB",
        "hash",
    )  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        start = [row["layout"].replace("x", " × "), row["system"]]
        if "problem" in row:
            lines.append("| " + " | ".join([*start, row["problem"].replace("|", "/")]) + " |" * (len(titles) - 2))
            continue
        cells = [
            *start,
            f"{row['step_ms_median']:.0f} ({row['step_ms_min']:.0f}-{row['step_ms_max']:.0f})",
            _number(row["ratio_to_ddp_processes"], 2),
            _number(row["ratio_to_ddp_threads"], 2),
            _number(row["limit_ms"] or None, 0),
            _number(row["sent_bytes"] / 1e6, 2),
            _number(row["received_bytes"] / 1e6, 2),
            _number(row["limit_bytes"] / 1e6, 2),
            f"{row['server_sent_bytes'] / 1e6:.2f} / {row['server_received_bytes'] / 1e6:.2f}",
            _number(row["processor_ms"], 0),
            _number(row["memory_mb"], 0),
            " ".join(digest[:8] for digest in row["sha256"]) or "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
