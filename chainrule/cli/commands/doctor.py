"""`chainrule doctor`: what is wrong with this machine, and how to mend it."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

from threadpoolctl import threadpool_info

from chainrule.cli.failures import FAILED, CommandFailed
from chainrule.cli.output import print_json, print_line
from chainrule.errors import AddressError, ServerError
from chainrule.process import doctor
from chainrule.process.available_memory import available_memory_bytes
from chainrule.process.doctor import Finding
from chainrule.process.lifecycle import available_processors
from chainrule.text import one_line, table_lines
from chainrule.transport.local_link.listener import why_unsupported

MARKS = {"ok": "ok", "warning": "!", "wrong": "wrong"}


def diagnose(server: str, *, is_named: bool, as_json: bool) -> None:
    """Print every finding. is_named: the user named the server, so that it must answer.

    Raises CommandFailed where something is wrong."""
    findings = [*machine(), *connection(server, is_named=is_named)]
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


def machine() -> list[Finding]:
    """What there is to say of this machine alone."""
    import numpy  # noqa: F401 - threadpoolctl sees the BLAS library once it is loaded

    home = Path(os.environ.get("CHAINRULE_HOME") or Path.home() / ".chainrule")
    return [
        doctor.python_version(),
        *doctor.packages(),
        doctor.blas(threadpool_info(), os.environ),
        doctor.blas_threads(os.environ),
        doctor.processors(available_processors()),
        doctor.memory(available_memory_bytes()),
        doctor.shared_memory(why_unsupported()),
        doctor.clock(time.time()),
        doctor.folder("home", home),
    ]


def connection(server: str, *, is_named: bool) -> list[Finding]:
    """What stands between this machine and a server."""
    from chainrule.client.blocking.client import Client
    from chainrule.client.channel import checked_address

    try:
        address = checked_address(server)
    except AddressError as error:
        return [Finding("server", "wrong", str(error), "name it as HOST:PORT")]
    host, _, port = address.rpartition(":")
    findings = [doctor.proxies(os.environ, host)]
    listening = doctor.port(host.strip("[]"), int(port))
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
