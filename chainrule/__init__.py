"""chainrule: write a loss as a formula; a parameter server trains it on many workers, with the same bits as on one.

Names are imported on first use, so that `import chainrule` loads neither gRPC nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.client import Client, connect
    from chainrule.errors import (
        AddressError,
        ChainruleError,
        ClusterError,
        DataFileError,
        InvalidJob,
        JobFileError,
        JobNotFound,
        ModelFileError,
        PreconditionFailed,
        ServerError,
        ServerTimeout,
        ServerUnavailable,
    )
    from chainrule.job_file import load_job_file, parse_job
    from chainrule.local_cluster import LocalCluster

__all__ = [
    "AddressError",
    "ChainruleError",
    "Client",
    "ClusterError",
    "DataFileError",
    "InvalidJob",
    "JobFileError",
    "JobNotFound",
    "LocalCluster",
    "ModelFileError",
    "PreconditionFailed",
    "ServerError",
    "ServerTimeout",
    "ServerUnavailable",
    "connect",
    "load_job_file",
    "parse_job",
]

_MODULES = {
    "Client": "client",
    "connect": "client",
    "load_job_file": "job_file",
    "parse_job": "job_file",
    "LocalCluster": "local_cluster",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'chainrule' has no attribute {name!r}")
    return getattr(importlib.import_module(f"chainrule.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
