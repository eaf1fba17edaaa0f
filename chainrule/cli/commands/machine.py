"""What the commands that start a cluster here do before they do."""

from __future__ import annotations

import signal

from chainrule.cli.failures import FAILED, CommandFailed, wrong_input
from chainrule.cli.output import print_note
from chainrule.local import preflight


def look_at_machine(*, worker_count: int, transport: str) -> None:
    """Tell what isn't as it should be, on standard error. Raises CommandFailed where a job can't start."""
    for each in preflight.local_cluster(worker_count=worker_count, transport=transport):
        if each.check == "shared memory" and transport == "shared-memory":
            raise wrong_input("--transport", f"shared-memory can't be had: {each.found}; take auto or grpc")
        if each.state == "wrong":
            raise CommandFailed(FAILED, [("", f"{each.check}: {each.found}; {each.mend}")], reason="PREFLIGHT")
        print_note(preflight.told(each))


def let_sigint_end_it() -> None:
    """Let ctrl-C and kill -INT end the cluster: a shell starts background commands with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
