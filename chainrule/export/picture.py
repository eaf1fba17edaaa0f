"""A model's graph as a picture that stands alone, for an example in the middle of the data."""

from __future__ import annotations

from pathlib import Path

from chainrule.export.model import ModelFile


def write_model_picture(model: ModelFile, path: Path) -> None:
    """Draw the loss with the model's parameters at x = 0, y = 0 (the first class). Raises ArgumentError.

    Where features and target are standardized, 0 is their mean; `chainrule explain` draws a row of the data."""
    import numpy as np

    from chainrule.graph_picture.file import write_picture
    from chainrule.graph_picture.values import picture_of
    from chainrule.text import one_line

    built = model.model
    x, y = built.inputs
    target = np.zeros(1, np.float32 if y.class_count is None else np.int64)
    values = dict(model.arrays) | {"x": np.zeros((1, *x.shape), np.float32), "y": target}
    prediction = None if built.prediction is None else built.prediction.root
    title = one_line(f"{model.title}, at x = 0")
    write_picture(picture_of(built.evaluation_loss, values, title=title, prediction=prediction), path)
