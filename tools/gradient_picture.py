"""Draw the way of one gradient through the code, docs/pictures/gradient.svg: hop by hop, by file and function.

    python tools/gradient_picture.py [FILE]

Each hop is looked up in the code: its function must be there, and must name the next hop's, unless a message lies
between them. So a picture can be drawn only of a way that is there.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "pictures" / "gradient.svg"
LANES = ("worker", "engine", "server", "holding")
FOLDERS = {
    "worker": "worker/chainrule_worker",
    "engine": "engine/chainrule_engine",
    "server": "server/chainrule_server",
    "holding": "chainrule/holding",
}
COLOURS = {"worker": "#ffe3e3", "engine": "#fff0d6", "server": "#e5f4e3", "holding": "#e0efff"}
WIDTH, HEIGHT, GAP, MARGIN, HEADER = 262.0, 44.0, 24.0, 20.0, 34.0
STYLE = (
    "text{font:11px 'DejaVu Sans',system-ui,sans-serif;fill:#3c434b}"
    ".name{font:600 11.5px 'DejaVu Sans Mono',ui-monospace,monospace;fill:#1d2126}"
    ".file{text-anchor:end;fill:#6b7480}"
    ".lane{font-size:13px;font-weight:600;fill:#1d2126}"
    "path{fill:none;stroke:#5b6470;stroke-width:1.3}path.message{stroke-dasharray:5 4}"
)


@dataclass(frozen=True)
class Hop:
    """A function that a gradient passes, in a file of its lane. then: how the next is reached that it doesn't call."""

    lane: str
    file: str
    function: str
    what: str
    then: str = ""

    @property
    def path(self) -> Path:
        """Its file."""
        return ROOT / FOLDERS[self.lane] / self.file


WAY = (
    Hop("worker", "session.py", "_serve", "an order has come"),
    Hop("worker", "assigned_job.py", "compute", "one answer for each subtree"),
    Hop("worker", "assigned_job.py", "_sum", "of this worker's shards"),
    Hop("engine", "microbatch.py", "gradient", "shard after shard, along the tree"),
    Hop("engine", "microbatch.py", "_added_gradient", "one microbatch, by backpropagation", "returns"),
    Hop("worker", "assigned_job.py", "compute", "the sum is there"),
    Hop("worker", "vectors.py", "attach", "pushed: in parts, or in shared memory", "PartialSum"),
    Hop("server", "api/connected_worker.py", "_read_stream", "the worker's stream"),
    Hop("server", "api/connected_worker.py", "_deliver", "a sign of life, too"),
    Hop("server", "jobs/worker_sharing.py", "route_message", "to the job that it is for"),
    Hop("server", "training/training.py", "push_partial_sum", "to the job's orders"),
    Hop("server", "training/orders.py", "collect_partial_sum", "late, foreign and repeated ones go"),
    Hop("server", "training/orders.py", "_decode_partial_sum", "its sums; its vector:"),
    Hop("holding", "exchange.py", "complete_gradient", "all of it is there", "returns"),
    Hop("server", "training/orders.py", "_decode_partial_sum", "into the step"),
    Hop("holding", "step_assembly.py", "assemble_whole", "beside the other subtrees'", "with the last one"),
    Hop("server", "training/training.py", "_commit_step", "every subtree is there"),
    Hop("holding", "step_assembly.py", "commit", "reduce, update, publish"),
    Hop("engine", "step_update.py", "prepare_all", "range by range"),
    Hop("engine", "step_update.py", "prepare", "into the second buffer"),
    Hop("engine", "step_update.py", "_prepare", "in blocks that stay in the cache"),
    Hop("engine", "step_update.py", "_mean_gradient", "reduction along the fixed tree", "then"),
    Hop("engine", "step_update.py", "_update", "the update rule: next parameters", "all is there and finite"),
    Hop("engine", "synchronous_sgd.py", "commit", "the buffers change places", "then"),
    Hop("server", "training/orders.py", "issue", "the next order"),
    Hop("server", "training/orders.py", "_give", "to each worker"),
    Hop("holding", "exchange.py", "order_messages", "with the parameters, pulled", "Order"),
    Hop("worker", "session.py", "_serve", "an order has come"),
)


def functions_of(path: Path, name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions and methods of that name in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            yield node


def names_in(node: ast.AST) -> set[str]:
    """What a piece of code calls by name or as an attribute."""
    return {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)} | {
        each.id for each in ast.walk(node) if isinstance(each, ast.Name)
    }


def broken(way: tuple[Hop, ...] = WAY) -> list[str]:
    """Where the way is not that of the code, in words."""
    found = []
    for hop, following in zip(way, (*way[1:], None), strict=True):
        bodies = list(functions_of(hop.path, hop.function))
        if not bodies:
            found.append(f"{hop.path.relative_to(ROOT)} has no function {hop.function}")
        elif following is not None and not hop.then and not any(following.function in names_in(b) for b in bodies):
            found.append(f"{hop.function} of {hop.path.relative_to(ROOT)} doesn't call {following.function}")
    return found


def svg() -> str:
    """The picture. Raises ValueError where the way isn't there."""
    if wrong := broken():
        raise ValueError("; ".join(wrong))
    width = 2 * MARGIN + len(LANES) * WIDTH + (len(LANES) - 1) * GAP
    height = 2 * MARGIN + HEADER + len(WAY) * (HEIGHT + GAP) - GAP

    def corner(number: int) -> tuple[float, float]:
        left = MARGIN + LANES.index(WAY[number].lane) * (WIDTH + GAP)
        return left, MARGIN + HEADER + number * (HEIGHT + GAP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img"><title>The way of one gradient through the code</title>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" style="fill:#5b6470;stroke:none"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    for number, lane in enumerate(LANES):
        left = MARGIN + number * (WIDTH + GAP)
        parts.append(f'<text class="lane" x="{left:.0f}" y="{MARGIN + 14:.0f}">{escape(FOLDERS[lane])}/</text>')
    for number in range(len(WAY) - 1):
        (left, top), (next_left, next_top) = corner(number), corner(number + 1)
        x, y, to_x = left + WIDTH / 2, top + HEIGHT, next_left + WIDTH / 2
        then = WAY[number].then
        kind = ' class="message"' if then else ""
        middle = y + (next_top - y) / 2
        turn = f"M{x:.0f} {y:.0f}V{middle:.0f}H{to_x:.0f}V{next_top:.0f}"
        parts.append(f'<path{kind} d="{turn}" marker-end="url(#arrow)"/>')
        if then:
            parts.append(f'<text x="{x + 7:.0f}" y="{middle + 12:.0f}">{escape(then)}</text>')
    for number, hop in enumerate(WAY):
        left, top = corner(number)
        parts.append(
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{WIDTH:.0f}" height="{HEIGHT:.0f}" rx="6" '
            f'fill="{COLOURS[hop.lane]}" stroke="#5b6470"/>'
        )
        parts.append(f'<text class="name" x="{left + 9:.0f}" y="{top + 18:.0f}">{escape(hop.function)}</text>')
        right, file = left + WIDTH - 9, escape(hop.file.rpartition("/")[2])
        parts.append(f'<text class="file" x="{right:.0f}" y="{top + 18:.0f}">{file}</text>')
        parts.append(f'<text x="{left + 9:.0f}" y="{top + 35:.0f}">{escape(hop.what)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> int:
    """Write the picture; return the exit code."""
    try:
        text = svg()
    except ValueError as error:
        sys.stderr.write(f"error: {error}; mend WAY in tools/gradient_picture.py\n")
        return 1
    (Path(sys.argv[1]) if len(sys.argv) > 1 else FILE).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
