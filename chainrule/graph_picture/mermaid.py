"""A picture as a Mermaid flowchart (mermaid.js.org), which many Markdown viewers draw."""

from __future__ import annotations

from chainrule.graph_picture.picture import Picture
from chainrule.graph_picture.svg import COLOURS, tag_of

BRACKETS = {
    "operation": ("[", "]"),
    "parameter": ("{{", "}}"),
    "input": ("[/", "/]"),
    "constant": ("([", "])"),
    "loss": ("[[", "]]"),
}


def mermaid(picture: Picture) -> str:
    """The flowchart, leaves at the bottom."""
    lines = ["flowchart BT"]
    for number, box in enumerate(picture.boxes):
        shape = f" ({box.shape})" if box.shape else ""
        rows = [f"{tag_of(box)} {box.title}{shape}".strip(), box.text]
        rows += [f"f = {box.f}", f"g = {box.g}" if box.g else ""]
        opening, closing = BRACKETS[box.kind]
        lines.append(f"  n{number}{opening}{quoted(*filter(None, rows))}{closing}:::{box.kind}")
    for edge in picture.edges:
        label = quoted(*filter(None, (edge.label, edge.value)))
        arrow = f"-->|{label}|" if edge.label else "-.->"
        lines.append(f"  n{edge.tail} {arrow} n{edge.head}")
    lines += [f"  classDef {kind} fill:{fill},stroke:{line},color:#1d2126" for kind, (fill, line) in COLOURS.items()]
    return "\n".join(lines) + "\n"


def quoted(*rows: str) -> str:
    """A quoted label of lines. All but letters, digits and spaces as an entity: none of it is Mermaid's or HTML's."""
    return '"' + "<br/>".join("".join(map(_entity, row)) for row in rows) + '"'


def _entity(character: str) -> str:
    return character if character.isalnum() or character in " .,=+()" or ord(character) > 127 else f"#{ord(character)};"
