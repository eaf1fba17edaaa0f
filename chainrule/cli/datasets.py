"""The commands `chainrule datasets …`, as chainrule.cli.app declares the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.options import DATA_FILES, DEFAULT_SERVER, Json, Server

app = typer.Typer(help="Upload, list and delete a server's data sets.", no_args_is_help=True, rich_markup_mode=None)
DataSet = Annotated[
    str, typer.Argument(metavar="DATASET", help="A name, a SHA-256, or its first 8 characters or more.")
]


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=f"A {DATA_FILES} file, or a .safetensors model.")],
    name: Annotated[
        str, typer.Option("--name", help="Its name on the server; the file's own where none is given.")
    ] = "",
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Send a file to a server, for jobs' data.uri (or model.start.model) = "dataset:NAME". Interrupted, the same
    command goes on."""
    from chainrule.cli.commands import datasets

    datasets.upload(server, file, name=name, as_json=as_json)


@app.command("list")
def list_data_sets(
    name_prefix: Annotated[
        str, typer.Option("--name", metavar="PREFIX", help="Only data sets with a name that begins so.")
    ] = "",
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """List a server's data sets, the latest first."""
    from chainrule.cli.commands import datasets

    datasets.list_data_sets(server, name_prefix=name_prefix, as_json=as_json)


@app.command()
def delete(data_set: DataSet, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Delete a data set that no job needs any more."""
    from chainrule.cli.commands import datasets

    datasets.delete(server, data_set, as_json=as_json)
