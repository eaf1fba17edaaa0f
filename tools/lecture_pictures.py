"""Draw the pictures of the lecture, docs/pictures/lecture/: small graphs with numbers that can be checked by hand.

python tools/lecture_pictures.py [FOLDER]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chainrule.graph_picture.svg import svg
from chainrule.graph_picture.values import picture_of
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "lecture"
Numbers = float | list[float] | list[list[float]]


@dataclass(frozen=True)
class Lesson:
    """A formula at one example. parameters: their values, which say their shapes too."""

    title: str
    loss: str
    parameters: dict[str, Numbers]
    x: Numbers
    y: float = 0.0
    prediction: str | None = None

    def svg(self) -> str:
        """The picture, with every node's forward and backward value."""
        values = {name: np.asarray(numbers, np.float64) for name, numbers in self.parameters.items()}
        x = np.asarray(self.x, np.float64)
        model = Model.build(
            loss=self.loss,
            prediction=self.prediction,
            functions={"phi": "sigmoid"},
            parameters=[Parameter(name, each.shape) for name, each in values.items()],
            inputs=[Input("x", x.shape), Input("y", ())],
        )
        leaves = {**values, "x": x[np.newaxis], "y": np.array([self.y])}
        root = None if model.prediction is None else model.prediction.root
        return svg(picture_of(model.loss, leaves, title=self.title, prediction=root))


LESSONS = {
    "square": Lesson("(a x − y)² at a = 3, x = 2, y = 5", "(a * x - y)**2", {"a": 3.0}, x=2.0, y=5.0),
    "shared": Lesson("a² + a x: a is used twice", "a**2 + a * x", {"a": 3.0}, x=2.0),
    "maximum": Lesson(
        "max(0, 1 − y w·x): hinge loss", "max(0, 1 - y * (w @ x))", {"w": [0.5, -0.25]}, x=[1.0, 2.0], y=1.0
    ),
    "two_layer": Lesson(
        "(w · φ(V x) − y)²",
        "(prediction - y)**2",
        {"V": [[1.0, -0.5], [0.5, 1.0]], "w": [1.0, -1.0]},
        x=[1.0, 2.0],
        y=1.0,
        prediction="w @ phi(V @ x)",
    ),
}


def main() -> int:
    """Write the pictures; return the exit code."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, lesson in LESSONS.items():
        (folder / f"{name}.svg").write_text(lesson.svg(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
