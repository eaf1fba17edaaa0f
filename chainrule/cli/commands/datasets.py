"""The commands about a server's data sets: upload, list, delete."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from chainrule.cli.failures import interrupted, wrong_input
from chainrule.cli.options import DATA_FILES, DEFAULT_SERVER, Json, Server
from chainrule.cli.output import print_json, print_line, print_table
from chainrule.client.blocking.client import Client
from chainrule.client.job_text import fields_of
from chainrule.text import one_line, size
from chainrule.v1 import data_service_pb2 as api
from chainrule.v1 import job_pb2

app = typer.Typer(name="datasets", help="Upload, list and delete a server's data sets.", no_args_is_help=True)
DataSet = Annotated[
    str, typer.Argument(metavar="DATASET", help="A name, a SHA-256, or its first 8 characters or more.")
]

PLAIN_INTERVAL_S = 5.0
SHOWN_DIGITS = 12
FILE_SCHEME = "file:"
DATA_SET_SCHEME = "dataset:"


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
    with Client(server) as client:
        data_set = upload_file(client, file, name=name)
    if as_json:
        print_json(fields_of(data_set))
    else:
        uri = f"{DATA_SET_SCHEME}{name or file.name}"
        key = "model.start.model" if uri.endswith(".safetensors") else "uri"
        print_line(f'{one_line(str(file))} is data set {data_set.sha256[:SHOWN_DIGITS]}; in a job: {key} = "{uri}"')


@app.command("list")
def list_data_sets(
    name_prefix: Annotated[
        str, typer.Option("--name", metavar="PREFIX", help="Only data sets with a name that begins so.")
    ] = "",
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """List a server's data sets, the latest first."""
    with Client(server) as client:
        data_sets = client.list_data_sets(name_prefix=name_prefix)
    if as_json:
        print_json({"data_sets": [fields_of(data_set) for data_set in data_sets]})
        return
    if not data_sets:
        print_line("there are no such data sets" if name_prefix else "there are no data sets")
        return
    rows = [("SHA-256", "SIZE", "CREATED", "NAMES")]
    for each in data_sets:
        created = each.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC")
        rows.append((each.sha256[:SHOWN_DIGITS], size(each.size_bytes), created, ", ".join(reversed(each.names))))
    print_table(rows)


@app.command()
def delete(data_set: DataSet, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Delete a data set that no job needs any more."""
    with Client(server) as client:
        sha256 = client.delete_data_set(data_set)
    if as_json:
        print_json({"sha256": sha256, "deleted": True})
    else:
        print_line(f"data set {sha256[:SHOWN_DIGITS]} is deleted")


def upload_file(client: Client, file: Path, *, name: str = "") -> api.DataSet:
    """Upload a file, its advance shown on standard error. Raises CommandFailed where it is interrupted."""
    try:
        with UploadDisplay(file.name) as display:
            return client.upload(file, name=name, told=display.show)
    except KeyboardInterrupt:
        message = f"interrupted; what the server has of {file.name} is kept, and the same command goes on from there"
        raise interrupted(message=message) from None


def upload_files(client: Client, spec: job_pb2.JobSpec, folder: Path) -> None:
    """Upload the files below the folder that a job names, of data and of a model to start from, and name them anew.

    What the job starts from may be there already, as may its data then. Raises CommandFailed, DataFileError."""
    start = spec.model.start.model
    has_model = bool(start) and not start.startswith(DATA_SET_SCHEME)
    # Both are looked at first: nothing is sent for a job that can't be submitted.
    data_path = model_path = None
    if spec.data.uri.startswith(FILE_SCHEME) or not has_model:
        data_path = _local_file(spec.data.uri, folder)
    if has_model:
        model_path = folder / start
        if not model_path.is_file():
            raise wrong_input("model.start.model", f"there is no file {model_path}; name one beside the job file")
    if data_path is not None:
        spec.data.uri = DATA_SET_SCHEME + upload_file(client, data_path).sha256
    if model_path is not None:
        spec.model.start.model = DATA_SET_SCHEME + upload_file(client, model_path).sha256


def _local_file(uri: str, folder: Path) -> Path:
    """The file that a `file:` URI names below the folder. Raises CommandFailed where it isn't one file."""
    if not uri.startswith(FILE_SCHEME):
        raise wrong_input("data.uri", f"is {uri[:80]!r}; --upload needs 'file:NAME', a file beside the job file")
    path = folder / uri.removeprefix(FILE_SCHEME)
    if not path.is_file():
        raise wrong_input("data.uri", f"there is no file {path}; --upload takes one file, no folder and no pattern")
    return path


class UploadDisplay:
    """A bar on a terminal, now and then a line elsewhere. clock: seconds, monotonic."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = one_line(name)
        self._clock = clock
        self._shown_at_s = clock()
        console = Console(stderr=True)
        self._bar: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                console=console,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> UploadDisplay:
        if self._bar is not None:
            self._bar.add_task(self._name, total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, what: str, done_bytes: int, size_bytes: int) -> None:
        """What is being done with the file, and how far it is."""
        description = f"{what} {self._name}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=description, completed=done_bytes, total=size_bytes)
        elif self._clock() - self._shown_at_s >= PLAIN_INTERVAL_S:
            self._shown_at_s = self._clock()
            sys.stderr.write(f"{description}: {size(done_bytes)} of {size(size_bytes)}\n")
            sys.stderr.flush()
