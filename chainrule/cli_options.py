"""The options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

DEFAULT_SERVER = "127.0.0.1:50051"
Server = Annotated[
    str, typer.Option("--server", metavar="HOST:PORT", envvar="CHAINRULE_SERVER", help="The server to talk to.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, or its first 4 characters or more.")]
