"""Which role may call which method. A method that isn't here is for admins alone; tests/test_stubs.py wants them all.

Health checks need no token: whoever starts, restarts or balances servers asks them, and they tell nothing but that a
server is there. Reflection tells what the public protos say, and needs any role.
"""

from __future__ import annotations

from chainrule.security.tokens import ROLES

EVERYBODY: frozenset[str] = frozenset(ROLES)
_READ = frozenset({"observer", "client", "admin"})
_CHANGE = frozenset({"client", "admin"})
_WORK = frozenset({"worker", "admin"})
_ADMIN = frozenset({"admin"})

# What nobody needs to show who they are for.
OPEN = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List", "/grpc.health.v1.Health/Watch"})

PERMISSIONS: dict[str, frozenset[str]] = {
    "/chainrule.v1.ClusterService/ListWorkers": _READ,
    "/chainrule.v1.ClusterService/ReportWorkerEnd": _CHANGE | _WORK,
    "/chainrule.v1.JobService/CreateJob": _CHANGE,
    "/chainrule.v1.JobService/GetJob": _READ,
    "/chainrule.v1.JobService/ListJobs": _READ,
    "/chainrule.v1.JobService/WatchJob": _READ,
    "/chainrule.v1.JobService/CancelJob": _CHANGE,
    "/chainrule.v1.JobService/PauseJob": _CHANGE,
    "/chainrule.v1.JobService/ResumeJob": _CHANGE,
    "/chainrule.v1.JobService/DeleteJob": _CHANGE,
    "/chainrule.v1.JobService/DownloadModel": _CHANGE,
    "/chainrule.v1.JobService/ReadTrace": _READ,
    "/chainrule.v1.JobService/ReadMetrics": _READ,
    "/chainrule.v1.ModelService/Predict": _CHANGE,
    "/chainrule.v1.ModelService/Explain": _CHANGE,
    "/chainrule.v1.ModelService/ExplainReduction": _CHANGE,
    "/chainrule.v1.ModelService/ListCheckpoints": _READ,
    "/chainrule.v1.DataService/BeginUpload": _CHANGE,
    "/chainrule.v1.DataService/AppendUpload": _CHANGE,
    "/chainrule.v1.DataService/FinishUpload": _CHANGE,
    "/chainrule.v1.DataService/CancelUpload": _CHANGE,
    "/chainrule.v1.DataService/GetDataSet": _READ,
    "/chainrule.v1.DataService/ListDataSets": _READ,
    "/chainrule.v1.DataService/DeleteDataSet": _CHANGE,
    "/chainrule.v1.WorkerService/Train": _WORK,
    "/chainrule.v1.WorkerService/ReadShard": _WORK,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": EVERYBODY,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": EVERYBODY,
}


def roles_of(method: str) -> frozenset[str]:
    """The roles that may call '/package.Service/Method'."""
    return PERMISSIONS.get(method, _ADMIN)
