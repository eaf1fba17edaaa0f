"""`chainrule workers`: who is connected to a server."""

from __future__ import annotations

import typer

from chainrule.cli.options import DEFAULT_SERVER, Json, Server
from chainrule.cli.output import print_json, print_line, print_table
from chainrule.client.blocking.client import Client
from chainrule.client.job_text import fields_of
from chainrule.v1 import cluster_service_pb2 as api

app = typer.Typer()

HEADER = ("WORKER", "HOST", "PROCESS", "TRANSPORT", "JOB", "SHARDS", "ROWS/S", "SILENT", "COMPUTES WITH")


@app.command()
def workers(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """List the workers that are connected: where they run, what they compute, when they were last heard of."""
    with Client(server) as client:
        found = client.list_workers()
    if as_json:
        print_json({"workers": [fields_of(worker) for worker in found]})
    elif not found:
        print_line(f"no worker is connected; 'chainrule worker --server {server}' starts one")
    else:
        print_table([HEADER, *map(_row, found)])


def _row(worker: api.Worker) -> tuple[str, ...]:
    last_shard = worker.first_shard + worker.shard_count - 1
    return (
        worker.name,
        worker.host,
        str(worker.process_id),
        worker.transport or "joining",
        worker.job_id,
        f"{worker.first_shard} to {last_shard}" if worker.shard_count else "",
        f"{worker.rows_per_second:.0f}" if worker.rows_per_second else "",
        f"{worker.silent_s:.1f} s",
        f"numpy {worker.numpy_version}, {worker.blas}, {worker.instructions}",
    )
