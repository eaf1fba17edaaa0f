"""chainrule: write a loss as a formula; a parameter server trains it on many workers, with the same bits as on one.

Names are imported on first use, so that `import chainrule` loads neither gRPC nor numpy. The functions of formulas,
such as `chainrule.sigmoid`, are here too, but no `from chainrule import *` brings them: some have Python's own names.
"""

from __future__ import annotations

import importlib
from typing import Any

# Every public name by the module that it comes from; `__init__.pyi` says the same to type checkers.
_MODULES = {
    "client.blocking.client": "Client",
    "client.blocking.connection": "Connection connect",
    "client.explanation": "Explanation",
    "client.blocking.job": "Job",
    "client.blocking.model": "Model",
    "errors": (
        "AddressError ArgumentError ChainruleError ClusterError ConnectionFileError CredentialsError DataFileError "
        "ExpressionError InvalidJob JobCancelled JobError JobFailed JobFileError JobNotEnded JobNotFound "
        "ModelFileError NotAllowed NotAuthenticated OfflineError PreconditionFailed RowsError ServerError "
        "ServerTimeout ServerUnavailable UnknownCategoryWarning"
    ),
    "local.cluster": "LocalCluster",
    "security.credentials": "Credentials Tls",
    "spec.expressions": "Expression inputs parameter",
    "spec.functions": (
        "abs absolute batch_norm concatenate cos cross_entropy dot dropout exp gelu hinge huber layer_norm leaky_relu "
        "log log1p log_softmax logistic logsumexp max mean min norm relu sigmoid silu sin softmax softplus sqrt "
        "square squared sum tanh"
    ),
    "spec.job_description": "job_spec",
    "spec.job_file": "load_job_file parse_job",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(["aio", *(name for name, module in _MODULE_OF.items() if module != "spec.functions")])


def __getattr__(name: str) -> Any:
    if name == "aio":
        return importlib.import_module("chainrule.aio")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'chainrule' has no attribute {name!r}")
    return getattr(importlib.import_module(f"chainrule.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), "aio", *_MODULE_OF})
