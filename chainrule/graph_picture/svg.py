"""A picture as SVG: parameters, inputs, constants and the loss told apart by colour, outline and label."""

from __future__ import annotations

from html import escape

from chainrule.graph_picture.layout import Layout, Point, layout
from chainrule.graph_picture.picture import Box, Edge, Picture

BOX_HEIGHT, LEAF_HEIGHT = 92.0, 72.0
MARGIN, HEADER = 24.0, 74.0
GAP = (30.0, 66.0)
LINE = 18.0
# (fill, outline) of each kind; the outline differs in form too, see `_outline`.
COLOURS = {
    "operation": ("#ffffff", "#5b6470"),
    "parameter": ("#fff0d6", "#c26a00"),
    "input": ("#e0efff", "#1565b5"),
    "constant": ("#ececec", "#777777"),
    "loss": ("#ffe3e3", "#b3161b"),
}
# DejaVu first: it has every sign of the formulas, and cairo looks at the first name only.
STYLE = (
    "text{font:13px 'DejaVu Sans',system-ui,sans-serif;fill:#1d2126}"
    ".title{font-weight:600;font-size:14px}.tag{font-size:10px;letter-spacing:.6px}"
    ".text,.shape,.f,.g{font-family:'DejaVu Sans Mono',ui-monospace,monospace;font-size:11.5px}"
    ".text{fill:#555c66}.shape{fill:#555c66}.f{fill:#0b6b3a}.g{fill:#8a1c8a}"
    ".edge path{fill:none;stroke:#5b6470;stroke-width:1.4}.edge.fixed path{stroke:#9aa1aa;stroke-dasharray:4 4}"
    ".edge text{font-size:11.5px;fill:#8a1c8a;text-anchor:middle}.edge rect{fill:#fff}"
)


def svg(picture: Picture) -> str:
    """The SVG document. Each box is a group with the id box-N, each edge one with the id edge-N."""
    sizes = [size_of(picture, number) for number in range(len(picture.boxes))]
    places = places_of(picture)
    width, height = page_size(places)
    shift = (width - places.width) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img">',
        f"<title>{escape(picture.title)}</title><style>{STYLE}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#5b6470"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        *_header(picture),
    ]

    def at(point: Point) -> Point:
        return point[0] + shift, HEADER + MARGIN + places.height - point[1]

    for number, edge in enumerate(picture.edges):
        parts.append(_edge(number, edge, [at(point) for point in places.routes[number]]))
    for number, box in enumerate(picture.boxes):
        parts.append(_box(number, box, at(places.centres[number]), sizes[number]))
    # Above everything: a label may lie where another edge passes.
    for number, edge in enumerate(picture.edges):
        parts.append(_label(number, edge, at(places.routes[number][-1])))
    return "\n".join([*(part for part in parts if part), "</svg>\n"])


def size_of(picture: Picture, number: int) -> tuple[float, float]:
    """Wide enough for its lines and for the labels of the edges that enter below."""
    box = picture.boxes[number]
    labels = [max(len(edge.label) * 7.0, len(edge.value) * 7.0) + 14 for edge in picture.edges if edge.head == number]
    heading = len(box.title) * 9.2 + len(box.shape) * 7.2 + len(tag_of(box)) * 8.0 + 64
    lines = max(len(box.text), len(box.f) + 4, len(box.g) + 4) * 7.2 + 40
    width = max(150.0, heading, lines, len(labels) * max(labels, default=0.0))
    return width, BOX_HEIGHT if box.text else LEAF_HEIGHT


def places_of(picture: Picture) -> Layout:
    """The layout that `svg` draws."""
    sizes = [size_of(picture, number) for number in range(len(picture.boxes))]
    return layout(sizes, [(edge.tail, edge.head) for edge in picture.edges], gap=GAP)


def page_size(places: Layout) -> tuple[float, float]:
    """(width, height) of the drawing, with its header and margins."""
    return max(places.width, 620.0) + 2 * MARGIN, places.height + HEADER + 2 * MARGIN


def tag_of(box: Box) -> str:
    """The word that says what a box is."""
    if box.kind == "operation":
        return "prediction" if box.is_prediction else ""
    return box.kind


def _header(picture: Picture) -> list[str]:
    parts = [f'<text x="{MARGIN:.0f}" y="30" class="title" style="font-size:17px">{escape(picture.title)}</text>']
    x = MARGIN
    for kind, (fill, line) in COLOURS.items():
        parts.append(
            f'<path d="{_outline(kind, x + 13, 56, 26, 16)}" fill="{fill}" stroke="{line}" stroke-width="1.4"/>'
            f'<text x="{x + 32:.0f}" y="60" style="font-size:12px">{kind}</text>'
        )
        x += 34 + len(kind) * 7 + 16
    parts.append(
        f'<text x="{x:.0f}" y="60" style="font-size:12px"><tspan fill="#0b6b3a">f forward</tspan>'
        '<tspan dx="14" fill="#8a1c8a">g = ∂loss/∂f backward</tspan></text>'
    )
    return parts


def _box(number: int, box: Box, centre: Point, size: tuple[float, float]) -> str:
    (x, y), (width, height) = centre, size
    fill, line = COLOURS[box.kind]
    left, right, top = x - width / 2 + 16, x + width / 2 - 16, y - height / 2
    if box.kind in ("input", "constant"):
        left, right = left + 6, right - 6
    outlines = f'<path class="outline" d="{_outline(box.kind, x, y, width, height)}" fill="{fill}" stroke="{line}" '
    outlines += 'stroke-width="1.6"/>'
    if box.kind == "loss":
        outlines += f'<path d="{_outline(box.kind, x, y, width - 8, height - 8)}" fill="none" stroke="{line}"/>'
    lines = [f'<text class="title" x="{left:.1f}" y="{top + 21:.1f}">{escape(box.title)}</text>']
    tag = tag_of(box)
    # Two texts and no spans: not every renderer measures spans that end at a place.
    for name, end, text in (("shape", right, box.shape), ("tag", right - len(box.shape) * 7.2 - 10, tag.upper())):
        if text:
            colour = f' style="fill:{line}"' if name == "tag" else ""
            lines.append(
                f'<text class="{name}" x="{end:.1f}" y="{top + 20:.1f}" text-anchor="end"{colour}>{escape(text)}</text>'
            )
    y_line = top + 20
    for name, text in (("text", box.text), ("f", box.f), ("g", box.g)):
        if text:
            y_line += LINE
            shown = text if name == "text" else f"{name} = {text}" if "[" not in text else f"{name}: {text}"
            lines.append(f'<text class="{name}" x="{left:.1f}" y="{y_line + 3:.1f}">{escape(shown)}</text>')
    return f'<g id="box-{number}" class="box {box.kind}">{outlines}{"".join(lines)}</g>'


def _outline(kind: str, x: float, y: float, width: float, height: float) -> str:
    """operation: rectangle. parameter: cut corners. input: leaning. constant: round ends. loss: rounded, twice."""
    left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    cut = min(10.0, height / 3)
    if kind == "parameter":
        points = [
            (left + cut, top), (right - cut, top), (right, top + cut), (right, bottom - cut),
            (right - cut, bottom), (left + cut, bottom), (left, bottom - cut), (left, top + cut),
        ]  # fmt: skip
    elif kind == "input":
        points = [(left + cut, top), (right, top), (right - cut, bottom), (left, bottom)]
    elif kind == "operation":
        points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    else:
        r = height / 2 if kind == "constant" else cut
        return (
            f"M{left + r:.1f} {top:.1f}H{right - r:.1f}A{r:.1f} {r:.1f} 0 0 1 {right:.1f} {top + r:.1f}"
            f"V{bottom - r:.1f}A{r:.1f} {r:.1f} 0 0 1 {right - r:.1f} {bottom:.1f}H{left + r:.1f}"
            f"A{r:.1f} {r:.1f} 0 0 1 {left:.1f} {bottom - r:.1f}V{top + r:.1f}"
            f"A{r:.1f} {r:.1f} 0 0 1 {left + r:.1f} {top:.1f}Z"
        )
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points) + "Z"


def _edge(number: int, edge: Edge, points: list[Point]) -> str:
    x, y = points[0]
    path = [f"M{x:.1f} {y:.1f}"]
    # The label lies on a last piece that runs straight up.
    end_x, end_y = points[-1]
    stub = 12 if not edge.label else 42 if edge.value else 27
    for next_x, next_y in [*points[1:-1], (end_x, end_y + stub)]:
        middle = (y + next_y) / 2
        straight = abs(next_x - x) < 0.05
        curve = f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}"
        path.append(f"V{next_y:.1f}" if straight else curve)
        x, y = next_x, next_y
    path.append(f"V{end_y:.1f}")
    fixed = "" if edge.partial else " fixed"
    return f'<g id="edge-{number}" class="edge{fixed}"><path d="{"".join(path)}" marker-end="url(#arrow)"/></g>'


def _label(number: int, edge: Edge, end: Point) -> str:
    if not edge.label:
        return ""
    x, y = end
    width = max(len(edge.label), len(edge.value)) * 6.4 + 6
    height = 32 if edge.value else 17
    value = f'<tspan x="{x:.1f}" dy="14">{escape(edge.value)}</tspan>' if edge.value else ""
    return (
        f'<g id="label-{number}" class="edge"><rect x="{x - width / 2:.1f}" y="{y + 9:.1f}" width="{width:.1f}" '
        f'height="{height}"/><text x="{x:.1f}" y="{y + 21:.1f}">{escape(edge.label)}{value}</text></g>'
    )
