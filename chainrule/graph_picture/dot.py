"""A picture in the DOT language of Graphviz (graphviz.org/doc/info/lang.html)."""

from __future__ import annotations

from chainrule.graph_picture.picture import Picture
from chainrule.graph_picture.svg import COLOURS, tag_of

SHAPES = {
    "operation": "box",
    "parameter": "octagon",
    "input": "parallelogram",
    "constant": "ellipse",
    "loss": "doubleoctagon",
}


def dot(picture: Picture) -> str:
    """The graph, leaves at the bottom."""
    lines = [
        f"digraph {quoted(picture.title)} {{",
        f'  rankdir=BT; labelloc="t"; label={quoted(picture.title)};',
        '  node [fontname="sans-serif", fontsize=11, style=filled]; edge [fontname="sans-serif", fontsize=10];',
    ]
    for number, box in enumerate(picture.boxes):
        fill, line = COLOURS[box.kind]
        shape = f" ({box.shape})" if box.shape else ""
        rows = [f"{tag_of(box)} {box.title}{shape}".strip(), box.text]
        rows += [f"f = {box.f}", f"g = {box.g}" if box.g else ""]
        label = quoted(*filter(None, rows))
        lines.append(f'  n{number} [shape={SHAPES[box.kind]}, fillcolor="{fill}", color="{line}", label={label}];')
    for edge in picture.edges:
        style = "" if edge.partial else ", style=dashed"
        label = quoted(*filter(None, (edge.label, edge.value)))
        lines.append(f"  n{edge.tail} -> n{edge.head} [label={label}{style}];")
    return "\n".join([*lines, "}\n"])


def quoted(*rows: str) -> str:
    """A quoted string of lines. A backslash would start an escape, a quote end the string."""
    return '"' + r"\n".join(row.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for row in rows) + '"'
