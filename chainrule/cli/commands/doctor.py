"""`chainrule doctor`: what is wrong with this machine, and how to mend it."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from threadpoolctl import threadpool_info

from chainrule.cli.failures import FAILED, CommandFailed
from chainrule.cli.options import DEFAULT_SERVER, Json
from chainrule.cli.output import print_json, print_line
from chainrule.errors import AddressError, ServerError
from chainrule.process import doctor as checks
from chainrule.process.available_memory import available_memory_bytes
from chainrule.process.doctor import Finding
from chainrule.process.lifecycle import available_processors
from chainrule.text import one_line, table_lines
from chainrule.transport.local_link.listener import why_unsupported

app = typer.Typer()

MARKS = {"ok": "ok", "warning": "!", "wrong": "wrong"}


@app.command()
def doctor(
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="HOST:PORT", envvar="CHAINRULE_SERVER", help="A server that must answer."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for what is wrong with this machine and say how to mend it: exit code 0, or 1."""
    findings = [*_machine(), *_connection(server or DEFAULT_SERVER, is_named=server is not None)]
    wrong = ", ".join(each.check for each in findings if each.state == "wrong")
    fields = {"is_well": not wrong, "findings": [asdict(each) for each in findings]}
    if not as_json:
        rows = [(MARKS[each.state], each.check, one_line(each.found)) for each in findings]
        for each, line in zip(findings, table_lines(rows), strict=True):
            print_line(line)
            if each.mend:
                print_line(f"       mend: {one_line(each.mend)}")
    if wrong:
        message = f"something is wrong here: {wrong}; each has its mend beside it"
        raise CommandFailed(FAILED, [("", message)], reason="DOCTOR", fields=fields)
    if as_json:
        print_json(fields)


def _machine() -> list[Finding]:
    """What there is to say of this machine alone."""
    import numpy  # noqa: F401 - threadpoolctl sees the BLAS library once it is loaded

    home = Path(os.environ.get("CHAINRULE_HOME") or Path.home() / ".chainrule")
    return [
        checks.python_version(),
        *checks.packages(),
        checks.blas(threadpool_info(), os.environ),
        checks.blas_threads(os.environ),
        checks.processors(available_processors()),
        checks.memory(available_memory_bytes()),
        checks.shared_memory(why_unsupported()),
        checks.clock(time.time()),
        checks.folder("home", home),
    ]


def _connection(server: str, *, is_named: bool) -> list[Finding]:
    """What stands between this machine and a server."""
    from chainrule.client.blocking.client import Client
    from chainrule.client.channel import checked_address

    try:
        address = checked_address(server)
    except AddressError as error:
        return [Finding("server", "wrong", str(error), "name it as HOST:PORT")]
    host, _, port = address.rpartition(":")
    findings = [checks.proxies(os.environ, host)]
    listening = checks.port(host.strip("[]"), int(port))
    if not is_named and listening.found.startswith("nothing"):
        return [*findings, listening]
    try:
        with Client(address) as client:
            states = client.health()
    except ServerError as error:
        mend = "start it ('chainrule server'), or check address, TLS and firewall"
        return [*findings, Finding("server", "wrong" if is_named else "warning", str(error), mend)]
    silent = sorted(name for name, state in states.items() if state != "SERVING")
    if silent:
        text = f"{address} answers, but {', '.join(silent)} is not serving"
        return [*findings, Finding("server", "warning", text, "wait until it has started, or see its log")]
    return [*findings, Finding("server", "ok", f"{address} is serving")]
