"""chainrule: write a loss as a formula; a parameter server trains it on many workers, with the same bits as on one.

Names are imported on first use, so that `import chainrule` loads neither gRPC nor numpy. The functions of formulas,
such as `chainrule.sigmoid`, are here too, but no `from chainrule import *` brings them: some have Python's own names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule import aio as aio
    from chainrule.client import Client
    from chainrule.connection import Connection, connect
    from chainrule.credentials import Credentials, Tls
    from chainrule.errors import (
        AddressError,
        ArgumentError,
        ChainruleError,
        ClusterError,
        ConnectionFileError,
        CredentialsError,
        DataFileError,
        ExpressionError,
        InvalidJob,
        JobCancelled,
        JobError,
        JobFailed,
        JobFileError,
        JobNotEnded,
        JobNotFound,
        ModelFileError,
        NotAllowed,
        NotAuthenticated,
        PreconditionFailed,
        RowsError,
        ServerError,
        ServerTimeout,
        ServerUnavailable,
    )
    from chainrule.explained import Explanation
    from chainrule.expressions import Expression, inputs, parameter
    from chainrule.functions import (
        abs as abs,
    )
    from chainrule.functions import (
        absolute as absolute,
    )
    from chainrule.functions import (
        batch_norm as batch_norm,
    )
    from chainrule.functions import (
        concatenate as concatenate,
    )
    from chainrule.functions import (
        cos as cos,
    )
    from chainrule.functions import (
        cross_entropy as cross_entropy,
    )
    from chainrule.functions import (
        dot as dot,
    )
    from chainrule.functions import (
        dropout as dropout,
    )
    from chainrule.functions import (
        exp as exp,
    )
    from chainrule.functions import (
        gelu as gelu,
    )
    from chainrule.functions import (
        hinge as hinge,
    )
    from chainrule.functions import (
        huber as huber,
    )
    from chainrule.functions import (
        layer_norm as layer_norm,
    )
    from chainrule.functions import (
        leaky_relu as leaky_relu,
    )
    from chainrule.functions import (
        log as log,
    )
    from chainrule.functions import (
        log1p as log1p,
    )
    from chainrule.functions import (
        log_softmax as log_softmax,
    )
    from chainrule.functions import (
        logistic as logistic,
    )
    from chainrule.functions import (
        logsumexp as logsumexp,
    )
    from chainrule.functions import (
        max as max,
    )
    from chainrule.functions import (
        mean as mean,
    )
    from chainrule.functions import (
        min as min,
    )
    from chainrule.functions import (
        norm as norm,
    )
    from chainrule.functions import (
        relu as relu,
    )
    from chainrule.functions import (
        sigmoid as sigmoid,
    )
    from chainrule.functions import (
        silu as silu,
    )
    from chainrule.functions import (
        sin as sin,
    )
    from chainrule.functions import (
        softmax as softmax,
    )
    from chainrule.functions import (
        softplus as softplus,
    )
    from chainrule.functions import (
        sqrt as sqrt,
    )
    from chainrule.functions import (
        square as square,
    )
    from chainrule.functions import (
        squared as squared,
    )
    from chainrule.functions import (
        sum as sum,
    )
    from chainrule.functions import (
        tanh as tanh,
    )
    from chainrule.job import Job
    from chainrule.job_description import job_spec
    from chainrule.job_file import load_job_file, parse_job
    from chainrule.local_cluster import LocalCluster
    from chainrule.model import Model

__all__ = [
    "AddressError",
    "ArgumentError",
    "ChainruleError",
    "Client",
    "ClusterError",
    "Connection",
    "ConnectionFileError",
    "Credentials",
    "CredentialsError",
    "DataFileError",
    "Explanation",
    "Expression",
    "ExpressionError",
    "InvalidJob",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobFileError",
    "JobNotEnded",
    "JobNotFound",
    "LocalCluster",
    "Model",
    "ModelFileError",
    "NotAllowed",
    "NotAuthenticated",
    "PreconditionFailed",
    "RowsError",
    "ServerError",
    "ServerTimeout",
    "ServerUnavailable",
    "Tls",
    "aio",
    "connect",
    "inputs",
    "job_spec",
    "load_job_file",
    "parameter",
    "parse_job",
]

# The module of each public name; the rest are errors.
_MODULES = {
    "Client": "client",
    "Connection": "connection",
    "connect": "connection",
    "Credentials": "credentials",
    "Tls": "credentials",
    "Explanation": "explained",
    "Expression": "expressions",
    "inputs": "expressions",
    "parameter": "expressions",
    "Job": "job",
    "load_job_file": "job_file",
    "parse_job": "job_file",
    "job_spec": "job_description",
    "LocalCluster": "local_cluster",
    "Model": "model",
}
_FUNCTIONS = (
    "abs",
    "absolute",
    "batch_norm",
    "concatenate",
    "cos",
    "cross_entropy",
    "dot",
    "dropout",
    "exp",
    "gelu",
    "hinge",
    "huber",
    "layer_norm",
    "leaky_relu",
    "log",
    "log1p",
    "log_softmax",
    "logistic",
    "logsumexp",
    "max",
    "mean",
    "min",
    "norm",
    "relu",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "sqrt",
    "square",
    "squared",
    "sum",
    "tanh",
)


def __getattr__(name: str) -> Any:
    if name == "aio":
        return importlib.import_module("chainrule.aio")
    if name in _FUNCTIONS:
        module = "functions"
    elif name in __all__:
        module = _MODULES.get(name, "errors")
    else:
        raise AttributeError(f"module 'chainrule' has no attribute {name!r}")
    return getattr(importlib.import_module(f"chainrule.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FUNCTIONS})
