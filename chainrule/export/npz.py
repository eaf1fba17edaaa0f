"""A model as an .npz of plain arrays: every parameter and running statistic by name, the metadata as one text each."""

from __future__ import annotations

from pathlib import Path

from chainrule.export.model import ModelFile

METADATA = "metadata."


def write_npz(model: ModelFile, path: Path) -> None:
    """Write the file; `numpy.load` reads it, without pickles. Raises OSError.

    Arrays have the names of the formulas; "metadata.spec", "metadata.preprocessing" and so on are texts of no axis."""
    import numpy as np

    arrays = dict(model.arrays) | {METADATA + name: np.array(text) for name, text in model.metadata.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes a name of ours for its own option
