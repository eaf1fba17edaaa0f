"""`chainrule graph`: a job's computation graph as a picture, with f, g and the local partial derivatives.

The example comes from a process of the server's code, which alone reads and prepares data; see
`chainrule_server.offline.example_row`.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from chainrule.cli.failures import given_as
from chainrule.cli.options import DataRoot, JobFile, Json, Settings
from chainrule.cli.output import print_json, print_line
from chainrule.graph_picture.file import check_picture_file, write_picture
from chainrule.graph_picture.picture import Picture
from chainrule.local.offline import ask
from chainrule.spec.job_file import load_job_file
from chainrule.text import one_line
from chainrule.v1 import job_pb2

app = typer.Typer()

EXAMPLE_TIMEOUT_S = 60.0


@app.command()
def graph(
    job_file: JobFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Ends in .svg, .html, .dot, .mmd or .png.")
    ],
    row: Annotated[int, typer.Option("--row", metavar="I", help="The example: a row of the data, from 0.")] = 0,
    parameters: Annotated[
        Path | None,
        typer.Option("--parameters", metavar="MODEL.safetensors", help="A trained model; else the first parameters."),
    ] = None,
    data_root: DataRoot = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Draw a job's computation graph with the forward and backward values of one example."""
    with given_as("--output"):
        check_picture_file(output)
    spec = load_job_file(job_file, settings or ())
    example = read_example(spec, row=row, parameters=parameters, data_root=data_root or job_file.parent)
    picture = picture_of_job(spec, example, row=row, parameters=parameters)
    with given_as("--output"):
        write_picture(picture, output)
    if as_json:
        print_json({"path": str(output), "boxes": len(picture.boxes), "edges": len(picture.edges), "row": row})
    else:
        print_line(str(output))


def read_example(
    spec: job_pb2.JobSpec, *, row: int, parameters: Path | None, data_root: Path | None = None
) -> dict[str, Any]:
    """What `offline.example_row` answers. Raises InvalidJob with the violations, or OfflineError."""
    options = [f"--row={row}"]
    if parameters is not None:
        options.append(f"--parameters={parameters}")
    if data_root is not None:
        options.append(f"--data-root={data_root}")
    return ask(
        "chainrule_server.offline.example_row",
        spec,
        options,
        timeout_s=EXAMPLE_TIMEOUT_S,
        timeout_message="the data was not read",
    )


def picture_of_job(
    spec: job_pb2.JobSpec, example: dict[str, Any], *, row: int, parameters: Path | None = None
) -> Picture:
    """The picture for an example. Batch normalization and dropout are drawn as they are evaluated."""
    from chainrule.bridge.model_of_spec import build_model
    from chainrule.graph_picture.values import picture_of

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
