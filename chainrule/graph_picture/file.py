"""A picture into a file, in the form that the file's ending says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chainrule.errors import ArgumentError
from chainrule.graph_picture.dot import dot
from chainrule.graph_picture.html import html
from chainrule.graph_picture.mermaid import mermaid
from chainrule.graph_picture.picture import Picture
from chainrule.graph_picture.png import load_cairosvg, png
from chainrule.graph_picture.svg import svg

# Beyond this a drawing is no use, and its layout slow.
MAX_DRAWN_BOXES = 400
WRITERS: dict[str, Callable[[Picture], str]] = {".svg": svg, ".html": html, ".dot": dot, ".mmd": mermaid}
SUFFIXES = (*WRITERS, ".png")


def check_picture_file(output: Path) -> None:
    """Raise ArgumentError where no picture can be written to `output`, which its ending alone may decide."""
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise ArgumentError(f"{output}: must end in {', '.join(SUFFIXES)}, which says what is written")
    if suffix == ".png":
        _check_png()
    if not output.parent.is_dir():
        raise ArgumentError(f"{output}: there is no folder {output.parent}; make it first")


def write_picture(picture: Picture, output: Path) -> None:
    """Write a picture in the form that the file's ending says. Raises ArgumentError."""
    suffix = output.suffix.lower()
    if suffix in (".svg", ".html", ".png") and len(picture.boxes) > MAX_DRAWN_BOXES:
        raise ArgumentError(
            f"the graph has {len(picture.boxes)} boxes, more than the {MAX_DRAWN_BOXES} of a readable drawing; "
            "write .dot or .mmd",
        )
    content = png(picture) if suffix == ".png" else WRITERS[suffix](picture).encode()
    try:
        output.write_bytes(content)
    except OSError as error:
        raise ArgumentError(f"{output}: can't be written: {error.strerror}") from None


def _check_png() -> None:
    try:
        load_cairosvg()
    except ImportError:
        raise ArgumentError("PNG needs the package cairosvg: pip install 'chainrule[graph]', or write .svg") from None
    except OSError:
        raise ArgumentError("PNG needs the system's cairo library (apt-get install libcairo2), or write .svg") from None
