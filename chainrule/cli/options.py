"""The options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chainrule.cells.endings import ENDINGS

DEFAULT_SERVER = "127.0.0.1:50051"
# The files of rows that a job can read.
DATA_FILES = f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
Server = Annotated[
    str, typer.Option("--server", metavar="HOST:PORT", envvar="CHAINRULE_SERVER", help="The server to talk to.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, or its first 4 characters or more.")]
JobOrModel = Annotated[
    str, typer.Argument(metavar="JOB", help="A job's id, or a model file: MODEL.safetensors needs no server.")
]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A key of the job file, such as training.epochs=50; may be repeated."
    ),
]
Transport = Annotated[
    str,
    typer.Option(
        "--transport",
        help="auto, grpc or shared-memory: how vectors travel. auto shares memory where both are on one machine.",
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        envvar="CHAINRULE_DATA_ROOT",
        help="The folder whose files a job may read; the job file's own where none is given.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="The model file; models/NAME-JOB.safetensors where none is given."
    ),
]
# Which version of a job's model.
Step = Annotated[
    int | None, typer.Option("--step", metavar="N", help="The parameters after this step, where they are kept.")
]
Best = Annotated[bool, typer.Option("--best", help="Those with the lowest validation loss that is known.")]
Last = Annotated[bool, typer.Option("--last", help="The last ones, also of a job that runs.")]
