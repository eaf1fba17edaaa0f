"""The commands that ask a server about a model: predict and explain."""

from __future__ import annotations

import base64
import csv
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import struct_pb2

from chainrule.cli.commands.model_data import data_of
from chainrule.cli.commands.rows_file import RowsFile, open_rows
from chainrule.cli.commands.train import default_model_path
from chainrule.cli.failures import WRONG_INPUT, CommandFailed, given_as, wrong_input
from chainrule.cli.options import DEFAULT_SERVER, Best, JobId, JobOrModel, Json, Last, Output, Server, Step
from chainrule.cli.output import print_json, print_line, print_note, print_table
from chainrule.client.blocking.client import Client
from chainrule.client.job_text import fields_of
from chainrule.client.model_requests import Version, set_version
from chainrule.client.unknown_categories import UnknownCategories
from chainrule.errors import InvalidJob
from chainrule.graph_picture.file import check_picture_file, write_picture
from chainrule.graph_picture.picture import Picture, name_of
from chainrule.graph_picture.values import picture_of_explanation, shape_text, summary
from chainrule.local.offline import ask
from chainrule.text import one_line, time_text
from chainrule.v1 import job_pb2, model_pb2
from chainrule.v1 import model_service_pb2 as api

app = typer.Typer()

MODEL_SUFFIX = ".safetensors"
MODEL_TIMEOUT_S = 300.0
Predictor = Callable[[api.PredictRequest], api.PredictResponse]


def version_of(step: int | None, *, best: bool, last: bool) -> Version | None:
    """The version that the options --step, --best and --last name. Raises CommandFailed for more than one."""
    if (step is not None) + best + last > 1:
        raise wrong_input("--step", "excludes --best and --last, and these each other; keep one")
    if step is not None and not 1 <= step < 1 << 63:
        raise wrong_input("--step", f"must be a step, counted from 1, got {step}")
    return "best" if best else "last" if last else step


def is_model_file(job_or_model: str) -> bool:
    """Whether a model file is named, and not a job. Raises CommandFailed for a file of another kind."""
    if job_or_model.endswith(MODEL_SUFFIX):
        return True
    if Path(job_or_model).is_file():
        message = f"{job_or_model}: is a file but no model file; give a job's id, or a model, MODEL{MODEL_SUFFIX}"
        raise wrong_input("JOB", message)
    return False


@app.command()
def download(
    job_id: JobId,
    output: Output = None,
    step: Step = None,
    best: Best = False,
    last: Last = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Write a job's model to a safetensors file: the result, or another version of the parameters."""
    version = version_of(step, best=best, last=last)
    with Client(server) as client:
        if output is None:
            job = client.get_job(job_id)
            job_id, output = job.job_id, default_model_path(job)
        path = client.download_model(job_id, output, version=version)
    if as_json:
        print_json({"job": job_id, "model_path": str(path), "size_bytes": path.stat().st_size})
    else:
        print_line(str(path))


@app.command()
def checkpoints(job_id: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """List the versions of a job's model: checkpoints, the last and the best."""
    with Client(server) as client:
        found = client.list_checkpoints(job_id)
    if as_json:
        print_json(fields_of(found))
        return
    rows = {each.step: [_loss(each), f"{each.size_bytes:,}", time_text(each.time)] for each in found.checkpoints}
    for name in ("last_step", "best_step"):
        if found.HasField(name):
            rows.setdefault(getattr(found, name), ["", "", ""])
    lines: list[tuple[str, ...]] = [("STEP", "VALIDATION LOSS", "BYTES", "WRITTEN", "")]
    for step in sorted(rows):
        names = [name for name in ("last", "best") if step == getattr(found, f"{name}_step")]
        lines.append((str(step), *rows[step], ", ".join(names)))
    print_table(lines)


def _loss(checkpoint: model_pb2.Checkpoint) -> str:
    return f"{checkpoint.validation_loss:.6g}" if checkpoint.HasField("validation_loss") else ""


@app.command()
def predict(
    job_or_model: JobOrModel,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Raw features, in any form that trains: .csv, .parquet, .npz, …; - is standard input.",
        ),
    ],
    header: Annotated[
        bool, typer.Option("--header/--no-header", help="Whether the first line names the columns.")
    ] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a category that no training row had, not only warn of it.")
    ] = False,
    step: Step = None,
    best: Best = False,
    last: Last = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Print a model's prediction for each row of a table, as CSV or, with --json, a line of JSON for each."""
    version = version_of(step, best=best, last=last)
    unknown = UnknownCategories()
    with (
        _predictor(server, job_or_model, version) as (ask_model, data),
        open_rows(file, header=header, data=data) as rows_file,
    ):
        row_count = 0
        for request in rows_file.requests:
            request.strict = strict
            try:
                response = ask_model(request)
            except InvalidJob as error:
                raise _in_file(error, rows_file, request, row_count) from None
            if not row_count and not as_json:
                _csv_line(["prediction", *_output_names(response)])
            row_count += len(request.rows)
            unknown.add(response)
            _print_predictions(response, as_json=as_json)
    if not row_count:
        raise wrong_input(str(file), "holds no rows" + (" below its line of names" if header else ""))
    for text in unknown.texts():
        print_note(f"warning: {text}")


@app.command()
def explain(
    job_id: JobId,
    row: Annotated[
        int | None,
        typer.Option("--row", metavar="I", help="The example: a row of the job's data; 0 where none is given."),
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option("--shard", metavar="I", help="Instead: this shard's next microbatch, counted from 0."),
    ] = None,
    reduced: Annotated[
        bool, typer.Option("--reduced", help="Instead: the next step's gradient, reduced over all shards.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A picture: .svg, .html, .dot, .mmd or .png."),
    ] = None,
    step: Step = None,
    best: Best = False,
    last: Last = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Show every node's forward and backward value, of a finished job's model or of one that is being trained."""
    version = version_of(step, best=best, last=last)
    if reduced:
        _explain_reduction(server, job_id, others=(row, shard, output), version=version, as_json=as_json)
        return
    if output is not None:
        with given_as("--output"):
            check_picture_file(output)
    if is_model_file(job_id):
        mend = "name its job, or draw it with 'chainrule export MODEL -o FILE.svg'"
        raise wrong_input("JOB", f"{job_id}: explain looks at the job's data, which a model file hasn't got; {mend}")
    if row is not None and shard is not None:
        raise wrong_input("--shard", "excludes --row; keep one of the two")
    if row is not None and not 0 <= row < 1 << 63:
        raise wrong_input("--row", f"must be a row of the job's data, counted from 0, got {row}")
    if shard is not None and not 0 <= shard < 1 << 31:
        raise wrong_input("--shard", f"must be a shard of the job, counted from 0, got {shard}")
    if shard is None and row is None:
        row = 0
    with Client(server) as client:
        answer = client.explain(job_id, row=row, shard=shard, version=version)
        name = client.get_job(answer.job_id).spec.name
    what = f"row {row}" if shard is None else f"{len(answer.rows)} rows of shard {shard} in step {answer.step + 1}"
    title = one_line(f"{name} ({answer.job_id}): {what}, parameters of step {answer.step}")
    picture = picture_of_explanation(answer, title)
    if output is not None:
        with given_as("--output"):
            write_picture(picture, output)
    if as_json:
        print_json(fields_of(answer) | ({} if output is None else {"path": str(output)}))
    elif output is not None:
        print_line(str(output))
    else:
        _print_boxes(picture)


def _explain_reduction(
    server: str, job_id: str, *, others: Sequence[object], version: Version | None = None, as_json: bool
) -> None:
    """Print the next step's gradient: each subtree of shards, then each parameter. Raises CommandFailed.

    others: options that name something else to explain, which must not be given."""
    if any(each is not None for each in others):
        raise wrong_input("--reduced", "excludes --row, --shard and --output: it is a table over all shards")
    with Client(server) as client:
        answer = client.explain_reduction(job_id, version=version)
    if as_json:
        print_json(fields_of(answer))
        return
    print_line(f"{answer.job_id}: the gradient of step {answer.step}, {answer.row_count} rows, loss {answer.loss:.6g}")
    print_line()
    rows = [("SHARDS", "ROWS", "LOSS", "NORM")]
    for each in answer.tree:
        last = each.first_shard + each.shard_count - 1
        name = f"{each.first_shard}" if each.shard_count == 1 else f"{each.first_shard} to {last}"
        rows.append((name, str(each.row_count), f"{each.loss:.6g}", f"{each.norm:.6g}"))
    print_table(rows)
    print_line()
    rows = [("PARAMETER", "SHAPE", "NORM", "MEAN GRADIENT")]
    for parameter in answer.parameters:
        shape = shape_text(parameter.shape)
        what = "frozen" if parameter.frozen else summary(parameter.gradient, is_number=not parameter.shape)
        rows.append((parameter.name, shape, f"{parameter.norm:.6g}", what))
    print_table(rows)


def _print_boxes(picture: Picture) -> None:
    print_line(picture.title)
    print_line()
    rows = [(name_of(box), box.shape, box.f, box.g) for box in picture.boxes]
    print_table([("NODE", "SHAPE", "FORWARD", "BACKWARD"), *rows])


def _print_predictions(response: api.PredictResponse, *, as_json: bool) -> None:
    for each in response.predictions:
        if as_json:
            print_json(fields_of(each))
            continue
        meaning: str | float = ""
        if each.HasField("class_name"):
            meaning = each.class_name
        elif each.HasField("value"):
            meaning = each.value
        _csv_line([meaning, *(each.outputs if _output_names(response) else ())])


def _output_names(response: api.PredictResponse) -> list[str]:
    """The columns for what the formula gave: none where it is the prediction itself in another unit."""
    if not response.predictions or response.predictions[0].HasField("value"):
        return []
    count = len(response.predictions[0].outputs)
    if count == len(response.classes):
        return list(response.classes)
    return ["output"] if count == 1 else [f"output_{number}" for number in range(count)]


def _csv_line(cells: Sequence[str | float]) -> None:
    csv.writer(sys.stdout, lineterminator="\n").writerow(cells)


@contextmanager
def _predictor(server: str, job_or_model: str, version: Version | None) -> Iterator[tuple[Predictor, job_pb2.DataSpec]]:
    """What predicts, a server, or a process of the server's code for each call with a model file; and the data that
    the model was trained with."""
    if not is_model_file(job_or_model):
        with Client(server) as client:
            job = client.get_job(job_or_model)

            def predict_there(request: api.PredictRequest) -> api.PredictResponse:
                request.job_id = job.job_id
                set_version(request, version)
                return client.predict_rows(request)

            yield predict_there, job.spec.data
        return
    if version is not None:
        raise wrong_input(job_or_model, "holds one version of a model; --step, --best and --last are for jobs")

    def predict_here(request: api.PredictRequest) -> api.PredictResponse:
        answer = ask(
            "chainrule_server.offline.predict",
            request,
            [job_or_model],
            timeout_s=MODEL_TIMEOUT_S,
            timeout_message=f"{job_or_model} gave no predictions",
        )
        return api.PredictResponse.FromString(base64.b64decode(answer["response"]))

    yield predict_here, data_of(Path(job_or_model))


def _in_file(error: InvalidJob, file: RowsFile, request: api.PredictRequest, first_row: int) -> CommandFailed:
    """The failure with rows of the file in place of the request's. first_row: the number of the request's first."""
    problems = []
    for path, message in error.problems:
        found = re.match(r"rows\[(\d+)\]\.values(?:\[(\d+)\])?$", path)
        if found is None:
            problems.append((str(file.path) if path.startswith("columns") else path, message))
            continue
        row = int(found[1])
        where = file.where(first_row + row)
        if found[2] is not None:
            place = int(found[2])
            column = request.columns[place] if request.columns else place + 1
            where += f", column {column}{_cell_text(request.rows[row].values[place])}"
        problems.append((f"{file.path} {where}", message))
    return CommandFailed(WRONG_INPUT, problems, reason=error.reason)


def _cell_text(value: struct_pb2.Value) -> str:
    """A cell for a message, with a colon before it; nothing where the message says what it is."""
    match value.WhichOneof("kind"):
        case "string_value":
            return f": {value.string_value!r:.40}"
        case "number_value":
            return f": {value.number_value:g}"
        case "bool_value":
            return f": {str(value.bool_value).lower()}"
        case _:
            return ""
