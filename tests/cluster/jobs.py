"""The jobs that tests with real processes train, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable

from chainrule.client.blocking.client import Client
from chainrule.transport import wire
from chainrule.v1 import job_pb2

Reference = Callable[[job_pb2.JobSpec], str]
# A vector of three parts, the last of them short.
LARGE = (2 * wire.PART_ELEMENTS + 7000) // 700


def small(**training: float) -> job_pb2.JobSpec:
    spec = job_pb2.JobSpec(name="small")
    spec.model.prediction = "w @ tanh(V @ x)"
    spec.model.loss = "(prediction - y)**2"
    spec.model.parameters.add(name="V", shape=["12", "d"])
    spec.model.parameters.add(name="w", shape=["12"])
    spec.data.uri = "sklearn:diabetes"
    spec.training.epochs = int(training.get("epochs", 3))
    spec.training.batch_size = 32
    spec.training.shards = 8
    spec.training.optimizer.learning_rate = 0.02
    return spec


def large() -> job_pb2.JobSpec:
    spec = small()
    spec.name = "large"
    spec.model.parameters[0].shape[0] = str(LARGE)
    spec.model.parameters[1].shape[0] = str(LARGE)
    spec.data.uri = "file:wide.npz"
    spec.training.epochs = 2
    spec.training.batch_size = 24
    spec.training.optimizer.learning_rate = 0.001
    return spec


def disturbed(base: Callable[[], job_pb2.JobSpec]) -> job_pb2.JobSpec:
    """A job that is long enough to be disturbed."""
    spec = base()
    spec.training.epochs = 120 if base is small else 10
    spec.training.min_workers = 2
    return spec


def finished(client: Client, spec: job_pb2.JobSpec) -> job_pb2.Job:
    """The job after its end."""
    return last(client, client.create_job(spec).job_id)


def last(client: Client, job_id: str) -> job_pb2.Job:
    job = job_pb2.Job()
    for job in client.watch_job(job_id):  # noqa: B007 - the last is wanted
        pass
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
    return job
