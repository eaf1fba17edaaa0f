"""Draw the rooms of the code, docs/pictures/rooms.svg: who imports whom, as the imports stand today.

    python tools/rooms_picture.py [FILE]

A room is a folder; what it is for is the docstring of its `__init__.py`. An arrow goes from a room to one that it
imports; one that follows from two others is left out. Tests compare the picture in the docs with a fresh one.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from chainrule.graph_picture.layout import Point, layout

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "pictures" / "rooms.svg"
# The folder of each import package.
PACKAGES = {
    "chainrule": ROOT / "chainrule",
    "chainrule_engine": ROOT / "engine" / "chainrule_engine",
    "chainrule_server": ROOT / "server" / "chainrule_server",
    "chainrule_worker": ROOT / "worker" / "chainrule_worker",
}
# The engine and the worker are one room each. What everybody imports says nothing: the stubs, and the root's few files.
WHOLE = ("chainrule_engine", "chainrule_worker")
EVERYBODYS = ("chainrule", "chainrule.v1")
COLOURS = {
    "chainrule": "#e0efff",
    "chainrule_engine": "#fff0d6",
    "chainrule_server": "#e5f4e3",
    "chainrule_worker": "#ffe3e3",
}
WIDTH, LINE, MARGIN, WORDS = 218.0, 15.0, 20.0, 31
STYLE = (
    "text{font:11.5px 'DejaVu Sans',system-ui,sans-serif;fill:#3c434b}"
    ".name{font:600 12px 'DejaVu Sans Mono',ui-monospace,monospace;fill:#1d2126}"
    "path{fill:none;stroke:#8a929c;stroke-width:1.2}"
)


def modules() -> Iterator[tuple[str, Path]]:
    """The name and the file of every module of ours but the generated stubs."""
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            if not name.startswith("chainrule.v1"):
                yield name, path


def room_of(name: str, rooms: Mapping[str, Path]) -> str:
    """The room that a module, or a name in one, is in."""
    while name not in rooms:
        name = name.rpartition(".")[0]
    return name


def rooms_of() -> dict[str, Path]:
    """The folder of each room by its import name."""
    found = dict(PACKAGES)
    for package, folder in PACKAGES.items():
        if package not in WHOLE:
            found |= {f"{package}.{each.parent.name}": each.parent for each in sorted(folder.glob("*/__init__.py"))}
    return found


def imports_of(path: Path) -> Iterator[str]:
    """What a file imports of ours, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def arrows_of(rooms: Mapping[str, Path]) -> dict[str, set[str]]:
    """The rooms that each room imports, without those of everybody."""
    arrows: dict[str, set[str]] = {room: set() for room in rooms if room not in EVERYBODYS}
    for name, path in modules():
        room = room_of(name, rooms)
        if room in arrows:
            arrows[room] |= {room_of(each, rooms) for each in imports_of(path)} - {room, *EVERYBODYS}
    if (entry := arrows.get("chainrule_server")) is not None:
        # What `errors`, `limits` and `grpc_status` are for; the process's `__main__` imports every room.
        arrows = {room: found - {"chainrule_server"} for room, found in arrows.items()}
        arrows["chainrule_server"] = entry
    return arrows


def in_order(arrows: Mapping[str, set[str]]) -> list[str]:
    """The rooms, each after all that it imports. Raises ValueError where imports run in a circle."""
    done: list[str] = []
    left = dict(sorted(arrows.items()))
    while left:
        ready = [room for room, found in left.items() if found <= {*done}]
        if not ready:
            raise ValueError(f"imports in a circle among {', '.join(left)}")
        done += ready
        left = {room: found for room, found in left.items() if room not in ready}
    return done


def direct(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that don't follow from others."""
    below: dict[str, set[str]] = {}
    for room in in_order(arrows):
        below[room] = arrows[room].union(*(below[each] for each in arrows[room]))
    return {
        room: {each for each in found if not any(each in below[o] for o in found)} for room, found in arrows.items()
    }


def words_of(folder: Path) -> list[str]:
    """The first sentence of a room's docstring, in lines."""
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return textwrap.wrap(said.split("\n\n")[0].split("; ")[0].rstrip("."), WORDS)


def svg() -> str:
    """The picture."""
    rooms = rooms_of()
    arrows = direct(arrows_of(rooms))
    order = in_order(arrows)
    words = {room: words_of(rooms[room]) for room in order}
    sizes = [(WIDTH, 30.0 + LINE * len(words[room])) for room in order]
    edges = sorted((order.index(low), order.index(high)) for high, found in arrows.items() for low in found)
    places = layout(sizes, edges, gap=(16.0, 44.0))
    width, height = places.width + 2 * MARGIN, places.height + 2 * MARGIN

    def at(point: Point) -> Point:
        return point[0] + MARGIN, height - MARGIN - point[1]

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img"><title>The rooms of the code, and who imports whom</title>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" style="fill:#8a929c;stroke:none"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    for route in places.routes:
        points = [at(point) for point in reversed(route)]
        line = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="M{line}" marker-end="url(#arrow)"/>')
    for room, centre, (box_width, box_height) in zip(order, places.centres, sizes, strict=True):
        x, y = at(centre)
        left, top = x - box_width / 2, y - box_height / 2
        colour = COLOURS[room.split(".")[0]]
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{box_width:.0f}" height="{box_height:.0f}" rx="6" '
            f'fill="{colour}" stroke="#5b6470"/>'
        )
        parts.append(f'<text class="name" x="{left + 9:.1f}" y="{top + 19:.1f}">{escape(room)}</text>')
        for number, line in enumerate(words[room]):
            parts.append(f'<text x="{left + 9:.1f}" y="{top + 36 + LINE * number:.1f}">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> int:
    """Write the picture; return the exit code."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    path.write_text(svg(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
