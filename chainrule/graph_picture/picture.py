"""What a picture of a graph shows: boxes, edges, and the steps of the forward and the backward pass."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """One node. title: the operation or the name. text: its part of the formula. shape: of one example, '32 × 10'.

    kind: operation, parameter, input, constant or loss, which colour, outline and label tell apart.
    rule: the operation's formula in its operands a, b, …   f, g: the values, summarised; '' where there is none."""

    kind: str
    title: str
    text: str = ""
    shape: str = ""
    rule: str = ""
    f: str = ""
    g: str = ""
    is_prediction: bool = False


@dataclass(frozen=True)
class Edge:
    """Box `tail` is an operand of box `head`. partial: 'b' in ∂f/∂a = b; '' where nothing is differentiated.

    letter: what the head's rule calls the operand. value: of the partial derivative, summarised, or ''.
    contribution: what the head's g adds to the tail's, as a formula."""

    tail: int
    head: int
    letter: str = "a"
    partial: str = ""
    value: str = ""
    contribution: str = ""

    @property
    def label(self) -> str:
        """The local partial derivative as it is written on the edge."""
        if not self.partial:
            return ""
        # A partial that names its indices is an equation of its own.
        return self.partial if self.partial.startswith("∂") else f"∂f/∂{self.letter} = {self.partial}"


@dataclass(frozen=True)
class Picture:
    """boxes: operands first, the loss last. An edge's tail comes before its head."""

    title: str
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Step:
    """One step of a pass: the box whose value comes to be, the edges it comes along, and the rule."""

    direction: str
    box: int
    edges: tuple[int, ...]
    rule: str
    value: str


def steps(picture: Picture) -> tuple[Step, ...]:
    """The forward pass from the leaves to the loss, then the backward pass from the loss to the leaves."""
    incoming: list[list[int]] = [[] for _ in picture.boxes]
    outgoing: list[list[int]] = [[] for _ in picture.boxes]
    for number, edge in enumerate(picture.edges):
        incoming[edge.head].append(number)
        outgoing[edge.tail].append(number)
    found = []
    for number, box in enumerate(picture.boxes):
        operands = [
            f"{picture.edges[each].letter} = {name_of(picture.boxes[picture.edges[each].tail])}"
            for each in incoming[number]
        ]
        rule = "\n".join([f"f = {box.rule}", "where", *operands]) if operands else f"{box.kind}: its value is given"
        found.append(Step("forward", number, tuple(incoming[number]), rule, f"f = {box.f}"))
    for number in reversed(range(len(picture.boxes))):
        box = picture.boxes[number]
        if not box.g:
            continue
        along = [each for each in outgoing[number] if picture.edges[each].contribution]
        terms = [
            f"{picture.edges[each].contribution}\nin the letters of {name_of(picture.boxes[picture.edges[each].head])}"
            for each in along
        ]
        rule = "g of this box is\n" + "\nplus\n".join(terms) if terms else "g = ∂loss/∂loss = 1"
        found.append(Step("backward", number, tuple(along), rule, f"g = {box.g}"))
    return tuple(found)


def name_of(box: Box) -> str:
    """How a sentence names a box."""
    return box.text or box.title
