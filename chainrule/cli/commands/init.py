"""`chainrule init`: a commented job file for a data file, to begin with."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.failures import WRONG_INPUT, CommandFailed, wrong_input
from chainrule.cli.options import DATA_FILES, Json
from chainrule.cli.output import print_json, print_line
from chainrule.errors import InvalidJob
from chainrule.local.offline import ask
from chainrule.spec.job_file import parse_job
from chainrule.spec.job_proposal import ColumnFacts, NoTarget, chosen_target, job_name, proposal
from chainrule.text import one_line
from chainrule.v1 import job_pb2

app = typer.Typer()

LOOK_TIMEOUT_S = 300.0


@app.command()
def init(
    data_file: Annotated[Path, typer.Argument(metavar="DATA", help=f"A {DATA_FILES} file, or a folder of them.")],
    target: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="What to predict; else the last column.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="JOB.toml", help="Else beside the data file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a commented job file for a data file: its columns are looked at, and a model is proposed."""
    if not data_file.exists():
        raise wrong_input("DATA", f"{data_file}: there is no such file; give a {DATA_FILES} file, or a folder of them")
    if data_file.is_dir():
        data_file = data_file.resolve()
        path = output or data_file.with_name(f"{data_file.name}.toml")
    else:
        path = output or data_file.with_suffix(".toml")
    folder = path.parent
    # The job file's own folder is what `train` reads files from.
    uri = f"file:{_below(data_file, folder)}"
    spec = job_pb2.JobSpec(data=job_pb2.DataSpec(uri=uri))
    options = [f"--data-root={folder}"]
    try:
        answer = ask(
            "chainrule_server.offline.column_facts",
            spec,
            options,
            timeout_s=LOOK_TIMEOUT_S,
            timeout_message="the data were not read",
        )
    except InvalidJob as error:
        # No job file is there yet whose key could be named.
        problems = [("DATA", f"{data_file}: {message}") for _, message in error.problems]
        raise CommandFailed(WRONG_INPUT, problems, reason=error.reason) from None
    columns = [ColumnFacts.of(each) for each in answer["columns"]]
    try:
        has_own_target = bool(answer.get("has_own_target"))
        if has_own_target and target not in (None, "target"):
            raise wrong_input("--target", f"{data_file} has a target of its own, the array 'target'")
        chosen = columns[-1] if has_own_target else chosen_target(columns, target, row_count=answer["row_count"])
        text = proposal(
            columns,
            uri=uri,
            name=job_name(data_file.stem),
            target=chosen,
            row_count=answer["row_count"],
            file_name=os.fspath(path),
            csv_format=answer.get("csv"),
            has_own_target=has_own_target,
        )
    except NoTarget as error:
        raise wrong_input("--target", str(error)) from None
    parse_job(text, source="the proposal")
    _write_new(path, text)
    if as_json:
        print_json({"path": str(path), "target": chosen.name, "row_count": answer["row_count"]})
        return
    print_line(one_line(f"{path}: predicts {chosen.name!r}; --target NAME chooses another column"))
    print_line(one_line(f"next: chainrule train {path} --workers 2"))


def _below(data_file: Path, folder: Path) -> str:
    """The data file's name as the job file, in `folder`, writes it. Raises CommandFailed."""
    try:
        return data_file.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise wrong_input(
            "--output",
            f"{folder}: must be the data file's folder or one above it, because jobs read files below theirs",
        ) from None


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink()
                raise
    except FileExistsError:
        raise wrong_input("--output", f"{path}: is there already; name another with -o, or move it away") from None
    except OSError as error:
        raise wrong_input("--output", f"{path}: can't be written: {error.strerror}") from None
