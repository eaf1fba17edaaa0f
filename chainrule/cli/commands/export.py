"""`chainrule export`: a model in the form that the output's ending says."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.commands.models import MODEL_SUFFIX, is_model_file, version_of
from chainrule.cli.failures import WRONG_INPUT, CommandFailed, given_as, wrong_input
from chainrule.cli.options import DEFAULT_SERVER, Best, JobOrModel, Json, Last, Server, Step
from chainrule.cli.output import print_json, print_line
from chainrule.client.blocking.client import Client
from chainrule.client.model_output import check_output
from chainrule.client.model_requests import Version
from chainrule.errors import ModelFileError
from chainrule.export.model import ModelFile, read_model_file
from chainrule.export.npz import write_npz
from chainrule.export.onnx import write_onnx
from chainrule.export.picture import write_model_picture
from chainrule.graph_picture.file import SUFFIXES as PICTURES
from chainrule.graph_picture.file import check_picture_file

app = typer.Typer()

WRITERS: dict[str, Callable[[ModelFile, Path], None]] = {
    ".onnx": write_onnx,
    ".npz": write_npz,
    **dict.fromkeys(PICTURES, write_model_picture),
}


@app.command()
def export(
    job_or_model: JobOrModel,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help=".onnx, .npz, .safetensors, .svg, .html, .dot, .mmd or .png."
        ),
    ],
    step: Step = None,
    best: Best = False,
    last: Last = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Write a model for other programs: as ONNX, as arrays, or as a picture of its graph."""
    version = version_of(step, best=best, last=last)
    suffix = output.suffix.lower()
    if suffix not in (*WRITERS, MODEL_SUFFIX):
        endings = ", ".join((MODEL_SUFFIX, *WRITERS))
        raise wrong_input("--output", f"{output}: must end in {endings}, which says what is written")
    if suffix in PICTURES:
        with given_as("--output"):
            check_picture_file(output)
    check_output(output)
    with _model_file(server, job_or_model, version) as path:
        try:
            model = read_model_file(path)
            if suffix == MODEL_SUFFIX:
                shutil.copyfile(path, output)
            else:
                with given_as("--output"):
                    WRITERS[suffix](model, output)
        except shutil.SameFileError:
            raise wrong_input("--output", f"{output}: is the model itself; name another file") from None
        except ModelFileError as error:
            raise CommandFailed(WRONG_INPUT, [("", str(error))], reason="MODEL_FILE") from None
        except OSError as error:
            raise wrong_input("--output", f"{output}: can't be written: {error.strerror}") from None
    if as_json:
        step = int(model.metadata["step"])
        print_json({"path": str(output), "job": model.metadata.get("job"), "step": step})
    else:
        print_line(str(output))


@contextmanager
def _model_file(server: str, job_or_model: str, version: Version | None) -> Iterator[Path]:
    """The model's file: the one that is named, or one that is downloaded for a while."""
    if is_model_file(job_or_model):
        if version is not None:
            raise wrong_input(job_or_model, "holds one version of a model; --step, --best and --last are for jobs")
        yield Path(job_or_model)
        return
    with tempfile.TemporaryDirectory(prefix="chainrule-") as folder, Client(server) as client:
        yield client.download_model(job_or_model, Path(folder) / f"model{MODEL_SUFFIX}", version=version)
