"""What can be wrong with a machine before anything is trained on it: each check is a function of what it looks at.

A finding is ok, a warning (things work, but not as well as they could) or wrong (something will fail), and says how to
mend it. Nothing is changed.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chainrule.address import is_loopback
from chainrule.process.lifecycle import BLAS_THREAD_VARIABLES

MIB = 1 << 20
GIB = 1 << 30
LEAST_MEMORY_BYTES = 512 * MIB
LEAST_DISK_BYTES = 1 * GIB
# A clock before this was never set; certificates and tokens would seem to be of the future.
EARLIEST_S = 1_735_689_600.0  # 2025-01-01
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
NEEDED = ("numpy", "grpcio", "protobuf", "safetensors")
OPTIONAL = {"scikit-learn": "sklearn", "pyarrow": "data", "numba": "numba", "cairosvg": "graph"}
CONNECT_TIMEOUT_S = 2.0

State = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What one check has found. mend: what to do; empty where all is well."""

    check: str
    state: State
    found: str
    mend: str = ""


def python_version(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Whether Python is new enough."""
    found = ".".join(map(str, version))
    if version < (3, 11):
        return Finding("python", "wrong", found, "install Python 3.11 or newer")
    return Finding("python", "ok", f"{found}, {platform.system()} {platform.machine()}")


def packages(version_of: Callable[[str], str] = importlib.metadata.version) -> list[Finding]:
    """The packages that everything needs, and those that only some jobs need."""
    found, missing = [], []
    for name in NEEDED:
        try:
            found.append(f"{name} {version_of(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    mend = f"pip install {' '.join(missing)}"
    needed = Finding("packages", "wrong" if missing else "ok", ", ".join(found) or "none", mend if missing else "")
    there, extras = [], []
    for name, extra in OPTIONAL.items():
        try:
            there.append(f"{name} {version_of(name)}")
        except importlib.metadata.PackageNotFoundError:
            extras.append(f"{name} (pip install 'chainrule[{extra}]')")
    text = ", ".join(there) or "none"
    if extras:
        text += f"; not installed: {', '.join(extras)}"
    return [needed, Finding("extras", "ok", text)]


def blas(libraries: Sequence[Mapping[str, object]], environment: Mapping[str, str]) -> Finding:
    """Which BLAS decides the bits. libraries: as threadpoolctl tells them."""
    found = [
        f"{each.get('internal_api')} {each.get('version')} {each.get('architecture', '')}".strip()
        for each in libraries
        if each.get("user_api") == "blas"
    ]
    if not found:
        return Finding(
            "blas", "warning", "none that is known", "install numpy's wheel: pip install --force-reinstall numpy"
        )
    text = "; ".join(found)
    kernel = environment.get("OPENBLAS_CORETYPE")
    if kernel:
        text += f"; OPENBLAS_CORETYPE={kernel} chooses the kernel, and so the bits: set it alike on all machines"
    return Finding("blas", "ok", text)


def blas_threads(environment: Mapping[str, str]) -> Finding:
    """Whether the environment asks for BLAS threads, which servers and workers don't take."""
    names = [f"{name}={environment[name]}" for name in BLAS_THREAD_VARIABLES if environment.get(name, "1") != "1"]
    if not names:
        return Finding("threads", "ok", "BLAS has one in each server and worker")
    text = f"{', '.join(names)} counts for other programs; BLAS has one thread in each server and worker all the same"
    return Finding("threads", "ok", text)


def processors(available: int, worker_count: int | None = None) -> Finding:
    """Whether each worker has a processor of its own; a worker computes with one thread."""
    text = f"{available} for this process"
    if worker_count is not None and worker_count > available:
        return Finding(
            "processors",
            "warning",
            f"{worker_count} workers share {available}: the bits are the same, but it is not faster",
            f"take --workers {available}",
        )
    return Finding("processors", "ok", f"{text}; a worker computes with one thread")


def memory(available_bytes: int | None) -> Finding:
    """Whether there is memory for a server and workers."""
    if available_bytes is None:
        return Finding("memory", "ok", "this system doesn't say how much is free")
    text = f"{available_bytes / GIB:.1f} GiB are free"
    if available_bytes < LEAST_MEMORY_BYTES:
        return Finding("memory", "warning", text, "end other programs, or raise the container's limit")
    return Finding("memory", "ok", text)


def shared_memory(why_unsupported: str | None) -> Finding:
    """Whether workers on the server's machine can share memory with it."""
    if why_unsupported is not None:
        return Finding("shared memory", "warning", why_unsupported, "nothing: vectors go over gRPC, with the same bits")
    try:
        descriptor = os.memfd_create("chainrule-doctor")
        try:
            os.posix_fallocate(descriptor, 0, MIB)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Finding(
            "shared memory", "warning", f"no memory can be shared: {error.strerror}", "raise the memory limit"
        )
    return Finding("shared memory", "ok", "workers on this machine share it with the server")


def proxies(environment: Mapping[str, str], host: str | None) -> Finding:
    """Whether a proxy stands between this machine and the server. host: the server's; None for this machine."""
    lower = {name.lower(): value for name, value in environment.items()}
    names = [name for name in PROXY_VARIABLES if lower.get(name)]
    if not names:
        return Finding("proxies", "ok", "none is set")
    if host is None or is_loopback(host.strip("[]")):
        return Finding("proxies", "ok", f"{', '.join(names)} are set; addresses of this machine don't go by them")
    spared = [each.strip().lstrip(".*") for each in lower.get("no_grpc_proxy", lower.get("no_proxy", "")).split(",")]
    if any(each and (host == each or host.endswith(f".{each}")) for each in spared):
        return Finding("proxies", "ok", f"{', '.join(names)} are set, but {host} is excepted")
    mend = f"if the server is not behind the proxy: export no_proxy={host}"
    return Finding("proxies", "warning", f"{names[0]} is set, so calls to {host} go by the proxy", mend)


def clock(now_s: float) -> Finding:
    """Whether the clock was ever set. now_s: Unix seconds."""
    if now_s < EARLIEST_S:
        return Finding(
            "clock", "wrong", "it is set before 2025", "set it: certificates are not valid yet by this clock"
        )
    return Finding("clock", "ok", "it is set")


def folder(check: str, path: Path) -> Finding:
    """Whether files can be written there, or where it would be made, and how much room there is."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
        free_bytes = shutil.disk_usage(nearest).free
    except OSError as error:
        return Finding(
            check, "wrong", f"{path} can't be written: {error.strerror}", "make room, change its owner, or name another"
        )
    text = f"{path}, {free_bytes / GIB:.1f} GiB are free"
    if free_bytes < LEAST_DISK_BYTES:
        return Finding(check, "warning", text, "make room: checkpoints and uploads need it")
    return Finding(check, "ok", text)


def port(host: str, number: int) -> Finding:
    """Whether something listens there already, which only a server that is to be started minds."""
    try:
        with socket.create_connection((host, number), timeout=CONNECT_TIMEOUT_S):
            return Finding("port", "ok", f"something listens at {host}:{number}")
    except OSError:
        return Finding("port", "ok", f"nothing listens at {host}:{number}; 'chainrule server' can")
