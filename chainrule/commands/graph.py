"""`chainrule graph`: a job's computation graph as a picture, with f, g and the local partial derivatives.

The example comes from a process of the server's code, which alone reads and prepares data; see `server.example`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.failures import wrong_input
from chainrule.graph_picture.dot import dot
from chainrule.graph_picture.html import html
from chainrule.graph_picture.mermaid import mermaid
from chainrule.graph_picture.picture import Picture
from chainrule.graph_picture.png import load_cairosvg, png
from chainrule.graph_picture.svg import svg
from chainrule.job_file import load_job_file
from chainrule.output import print_json, print_line
from chainrule.server_code import ask
from chainrule.text import one_line
from chainrule.v1 import job_pb2

EXAMPLE_TIMEOUT_S = 60.0
# Beyond this a drawing is no use, and its layout slow.
MAX_DRAWN_BOXES = 400

WRITERS: dict[str, Callable[[Picture], str]] = {".svg": svg, ".html": html, ".dot": dot, ".mmd": mermaid}
SUFFIXES = (*WRITERS, ".png")


def graph(
    job_file: Path, output: Path, *, row: int, parameters: Path | None, as_json: bool, data_root: Path | None = None
) -> None:
    """Draw the loss of a job for one row of its data. data_root: the job file's folder where it is None.

    Raises CommandFailed, JobFileError or InvalidJob."""
    check_picture_file(output)
    spec = load_job_file(job_file)
    example = read_example(spec, row=row, parameters=parameters, data_root=data_root or job_file.parent)
    picture = picture_of_job(spec, example, row=row, parameters=parameters)
    write_picture(picture, output)
    if as_json:
        print_json({"path": str(output), "boxes": len(picture.boxes), "edges": len(picture.edges), "row": row})
    else:
        print_line(str(output))


def check_picture_file(output: Path) -> None:
    """Raise CommandFailed where no picture can be written to `output`, which its ending alone may decide."""
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise wrong_input("--output", f"{output}: must end in {', '.join(SUFFIXES)}, which says what is written")
    if suffix == ".png":
        _check_png()
    if not output.parent.is_dir():
        raise wrong_input("--output", f"{output}: there is no folder {output.parent}; make it first")


def write_picture(picture: Picture, output: Path) -> None:
    """Write a picture in the form that the file's ending says. Raises CommandFailed."""
    suffix = output.suffix.lower()
    if suffix in (".svg", ".html", ".png") and len(picture.boxes) > MAX_DRAWN_BOXES:
        raise wrong_input(
            "--output",
            f"the graph has {len(picture.boxes)} boxes, more than the {MAX_DRAWN_BOXES} of a readable drawing; "
            "write .dot or .mmd",
        )
    content = png(picture) if suffix == ".png" else WRITERS[suffix](picture).encode()
    try:
        output.write_bytes(content)
    except OSError as error:
        raise wrong_input("--output", f"{output}: can't be written: {error.strerror}") from None


def read_example(
    spec: job_pb2.JobSpec, *, row: int, parameters: Path | None, data_root: Path | None = None
) -> dict[str, Any]:
    """What `server.example` answers. Raises InvalidJob with the violations, or CommandFailed."""
    options = [f"--row={row}"]
    if parameters is not None:
        options.append(f"--parameters={parameters}")
    if data_root is not None:
        options.append(f"--data-root={data_root}")
    return ask("server.example", spec, options, timeout_s=EXAMPLE_TIMEOUT_S, timeout_message="the data was not read")


def picture_of_job(
    spec: job_pb2.JobSpec, example: dict[str, Any], *, row: int, parameters: Path | None = None
) -> Picture:
    """The picture for an example. Batch normalization and dropout are drawn as they are evaluated."""
    from chainrule.graph_picture.values import picture_of
    from chainrule.modeling import build_model

    model = build_model(spec, feature_count=example["feature_count"], class_count=example["class_count"])
    source = "first parameters" if parameters is None else f"parameters of {parameters.name}"
    return picture_of(
        model.evaluation_loss,
        values_of(example),
        title=one_line(f"{spec.name}: row {row}, {source}"),
        prediction=None if model.prediction is None else model.prediction.root,
    )


def values_of(example: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The values of the leaves of the evaluated loss by name; x and y have one row."""
    values: dict[str, NDArray[Any]] = {name: _decoded(each) for name, each in example["parameters"].items()}
    return values | {name: _decoded(example[name])[np.newaxis] for name in ("x", "y")}


def _decoded(array: dict[str, Any]) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(array["base64"]), dtype=array["dtype"]).reshape(array["shape"])


def _check_png() -> None:
    try:
        load_cairosvg()
    except ImportError:
        raise wrong_input(
            "--output", "PNG needs the package cairosvg: pip install 'chainrule[graph]', or write .svg"
        ) from None
    except OSError:
        raise wrong_input(
            "--output", "PNG needs the system's cairo library (apt-get install libcairo2), or write .svg"
        ) from None
