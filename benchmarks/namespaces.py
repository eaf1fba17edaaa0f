"""Machines that this one plays: network namespaces on a bridge, each with a link of a given rate. Linux, as root.

The bridge is in a namespace of its own, so the machine's own network is never touched, and a namespace that goes takes
its links with it. The namespaces' names hold our process's number; what an earlier benchmark that was killed left
behind, goes when the next starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chainrule.local.processes import uninterrupted

PREFIX = "chainrule-net-"
INTERFACE = "link0"
TIMEOUT_S = 20.0
# How much may wait before the link. The burst must hold what the kernel hands over at once, 64 KB.
QUEUE = ("burst", "256kb", "latency", "50ms")


class NotPossible(RuntimeError):
    """No such network can be made here; the message says why."""


@dataclass(frozen=True)
class LinkBytes:
    """What a machine's link has carried, as the kernel counts it: with Ethernet's and TCP's headers."""

    sent: int
    received: int

    def since(self, before: LinkBytes) -> LinkBytes:
        """What it carried after `before`."""
        return LinkBytes(self.sent - before.sent, self.received - before.received)


@dataclass(frozen=True)
class Machine:
    """One namespace. address: of its link."""

    namespace: str
    address: str

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command there."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def link_bytes(self) -> LinkBytes:
        """What its link has carried since it was made. Raises NotPossible."""
        return counters_of(_run("ip", "-n", self.namespace, "-s", "-j", "link", "show", "dev", INTERFACE))


def counters_of(text: str) -> LinkBytes:
    """The counters in the answer of `ip -s -j link show dev NAME`. Raises NotPossible."""
    try:
        (link,) = json.loads(text)
        counted = link["stats64"]
        return LinkBytes(int(counted["tx"]["bytes"]), int(counted["rx"]["bytes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise NotPossible(f"'ip -s -j link' gave no counters of one link ({error!r}): {text[:200]}") from None


def why_not() -> str | None:
    """Why there can be no namespaces here; None where it is worth a try."""
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"there is no {' and no '.join(missing)}; apt-get install iproute2"
    if os.geteuid() != 0:
        return "namespaces need root"
    return None


@contextlib.contextmanager
def machines(count: int, *, rate: str) -> Iterator[list[Machine]]:
    """So many machines, each with a link of that rate in both directions; rate as tc writes it, such as '1gbit'.

    Raises NotPossible. Whatever ends the block, the namespaces go."""
    _remove_abandoned()
    prefix = f"{PREFIX}{os.getpid()}"
    hub = f"{prefix}-hub"
    made = [Machine(f"{prefix}-{number}", f"10.231.0.{number + 1}") for number in range(count)]
    try:
        _run("ip", "netns", "add", hub)
        _run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", hub, "link", "set", "bridge", "up")
        for number, machine in enumerate(made):
            _connect(machine, hub, f"port{number}", rate)
        yield made
    finally:
        with uninterrupted():
            for namespace in [*(machine.namespace for machine in made), hub]:
                _remove(namespace)


def _connect(machine: Machine, hub: str, port: str, rate: str) -> None:
    name = machine.namespace
    _run("ip", "netns", "add", name)
    _run("ip", "link", "add", INTERFACE, "netns", name, "type", "veth", "peer", "name", port, "netns", hub)
    _run("ip", "-n", hub, "link", "set", port, "master", "bridge", "up")
    _run("ip", "-n", name, "addr", "add", f"{machine.address}/24", "dev", INTERFACE)
    _run("ip", "-n", name, "link", "set", INTERFACE, "up")
    _run("ip", "-n", name, "link", "set", "lo", "up")
    # What leaves the machine waits at its own end, what comes to it at the bridge's.
    for namespace, interface in ((name, INTERFACE), (hub, port)):
        _run("tc", "-n", namespace, "qdisc", "add", "dev", interface, "root", "tbf", "rate", rate, *QUEUE)


def _run(*command: str) -> str:
    """What a command prints. Raises NotPossible."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotPossible(f"'{' '.join(command)}': {error}") from None
    if done.returncode:
        raise NotPossible(f"'{' '.join(command)}': {done.stderr.strip()}")
    return done.stdout


def _remove(namespace: str) -> None:
    # It may never have been made.
    with contextlib.suppress(NotPossible):
        _run("ip", "netns", "del", namespace)


def _remove_abandoned() -> None:
    for line in _run("ip", "netns", "list").splitlines():
        name = line.partition(" ")[0]
        process = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and process.isdigit() and not _lives(int(process)):
            _remove(name)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
