"""What is looked at before a job starts on this machine: the checks of `chainrule doctor` that its start depends on.

Proxies are no part of it, since channels pass them by on this machine, nor are ports, since a local server takes a free
one: where either is in the way elsewhere, the error itself says so.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from chainrule.process import doctor
from chainrule.process.available_memory import available_memory_bytes
from chainrule.process.doctor import Finding
from chainrule.process.lifecycle import available_processors
from chainrule.text import size
from chainrule.transport.local_link.listener import why_unsupported
from chainrule.v1 import job_service_pb2 as api

# A server's or a worker's process before it holds anything: Python, numpy, gRPC.
PROCESS_BYTES = 64 << 20


def local_cluster(*, worker_count: int, transport: str) -> list[Finding]:
    """What is not as it should be for a server and so many workers here."""
    findings = [
        doctor.processors(available_processors(), worker_count),
        doctor.memory(available_memory_bytes()),
        doctor.folder("temporary files", _temporary_folder()),
    ]
    if transport != "grpc":
        findings.append(doctor.shared_memory(why_unsupported()))
    return [each for each in findings if each.state != "ok"]


def job_memory(estimate: api.JobEstimate, *, worker_count: int, available_bytes: int | None) -> Finding:
    """Whether a job fits into what was free before its cluster was started. estimate: as the server gave it."""
    wanted_bytes = estimate.server_bytes + worker_count * estimate.worker_bytes + (worker_count + 1) * PROCESS_BYTES
    if available_bytes is None or wanted_bytes <= available_bytes:
        return Finding("memory", "ok", f"the job takes up to {size(wanted_bytes)}")
    found = f"the job may take {size(wanted_bytes)} with its workers, and {size(available_bytes)} are free"
    return Finding("memory", "warning", found, "take fewer workers, a smaller batch, or a machine with more")


def told(finding: Finding) -> str:
    """The finding as one line."""
    return f"warning: {finding.check}: {finding.found}; {finding.mend}"


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        # `doctor.folder` says why it can't be written.
        return Path("/tmp")  # noqa: S108
