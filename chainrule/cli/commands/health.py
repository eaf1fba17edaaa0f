"""`chainrule health`: an exit code, for people and for the health checks of containers, which must cost little."""

from __future__ import annotations

import os

import grpc
import typer

from chainrule.cli.failures import FAILED, CommandFailed
from chainrule.cli.options import DEFAULT_SERVER, Json, Server
from chainrule.cli.output import print_json, print_table
from chainrule.client.channel import channel_options, checked_address
from chainrule.client.health import service_health
from chainrule.security.credentials import Credentials
from chainrule.security.secure_channel import open_channel

app = typer.Typer()

TIMEOUT_S = 20.0


@app.command()
def health(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Tell whether a server is serving: exit code 0, or 1."""
    credentials = Credentials.from_environment(os.environ)
    try:
        with open_channel(checked_address(server), credentials, channel_options(repeats=False)) as channel:
            services = service_health(channel, timeout_s=TIMEOUT_S)
    except grpc.RpcError as error:
        from chainrule.client.grpc_errors import translated

        raise translated(error, server, TIMEOUT_S, credentials) from None
    status = services.pop("")
    if as_json:
        print_json({"status": status, "services": services})
    else:
        print_table([("server", status), *services.items()])
    if {status, *services.values()} != {"SERVING"}:
        raise CommandFailed(FAILED, [("", f"the server at {server} is not serving")], reason="NOT_SERVING")
