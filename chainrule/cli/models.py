"""The commands about models: what comes out of a job. chainrule.cli.commands holds what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.options import DEFAULT_SERVER, JobId, Json, Output, Server

app = typer.Typer()
Step = Annotated[
    int | None, typer.Option("--step", metavar="N", help="The parameters after this step, where they are kept.")
]
Best = Annotated[bool, typer.Option("--best", help="Those with the lowest validation loss that is known.")]
Last = Annotated[bool, typer.Option("--last", help="The last ones, also of a job that runs.")]


@app.command()
def download(
    job: JobId,
    output: Output = None,
    step: Step = None,
    best: Best = False,
    last: Last = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Write a job's model to a safetensors file: the result, or another version of the parameters."""
    from chainrule.cli.commands import jobs, models

    version = models.version_of(step, best=best, last=last)
    jobs.download(server, job, output, version=version, as_json=as_json)


@app.command()
def checkpoints(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """List the versions of a job's model: checkpoints, the last and the best."""
    from chainrule.cli.commands import models

    models.checkpoints(server, job, as_json=as_json)


@app.command()
def predict(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's id, or a model file: MODEL.safetensors needs no server.")
    ],
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
    from chainrule.cli.commands import models

    version = models.version_of(step, best=best, last=last)
    models.predict(server, job, file, header=header, version=version, strict=strict, as_json=as_json)


@app.command()
def explain(
    job: JobId,
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
    from chainrule.cli.commands import models

    version = models.version_of(step, best=best, last=last)
    if reduced:
        models.explain_reduction(server, job, others=(row, shard, output), version=version, as_json=as_json)
    else:
        models.explain(server, job, row=row, shard=shard, output=output, version=version, as_json=as_json)


@app.command()
def export(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's id, or a model file: MODEL.safetensors needs no server.")
    ],
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
    from chainrule.cli.commands import export, models

    version = models.version_of(step, best=best, last=last)
    export.export(server, job, output, version=version, as_json=as_json)
