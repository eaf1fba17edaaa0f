"""A picture as PNG: the SVG drawing, painted by cairosvg with the system's cairo library."""

from __future__ import annotations

import importlib
import math
from typing import Any

from chainrule.graph_picture.picture import Picture
from chainrule.graph_picture.svg import page_size, places_of, svg

# Two pixels for each unit of the drawing: its small letters stay sharp on a fine screen and on paper.
SCALE = 2.0
# Cairo refuses a side of 2¹⁵ pixels or more, and 4 bytes a pixel make 240 MB.
MAX_SIDE = 32_000
MAX_PIXELS = 60_000_000


def png(picture: Picture) -> bytes:
    """The drawing; a very large one is scaled down. Raises as `load_cairosvg` does."""
    svg2png = load_cairosvg().svg2png
    return bytes(svg2png(bytestring=svg(picture).encode(), scale=scale_of(*page_size(places_of(picture)))))


def scale_of(width: float, height: float) -> float:
    """Pixels for each unit of a drawing."""
    return min(SCALE, MAX_SIDE / max(width, height), math.sqrt(MAX_PIXELS / (width * height)))


def load_cairosvg() -> Any:
    """The module. Raises ImportError where it is missing, and OSError where the system's cairo library is."""
    return importlib.import_module("cairosvg")
