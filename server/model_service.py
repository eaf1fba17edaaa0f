"""The RPC methods of ModelService: decode, one call on a plain object in a thread, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from chainrule.v1 import model_service_pb2 as api
from chainrule.v1 import model_service_pb2_grpc
from server.errors import WrongState, unary
from server.explanation import explain
from server.jobs import Job
from server.prediction import predict
from server.scheduler import Scheduler
from server.stopping import Stop
from server.trained_model import TrainedModel, read_model

# More threads than this would take the time of the event loop, on which training depends.
MAX_COMPUTATIONS = 2
Answer = TypeVar("Answer")


@dataclass
class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """What a trained model answers."""

    scheduler: Scheduler
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_COMPUTATIONS))

    @unary
    async def Predict(self, request: api.PredictRequest) -> api.PredictResponse:  # noqa: N802
        job = self.scheduler.book.find(request.job_id)
        model = self._model_of(job)
        response = await self._compute(lambda stop: predict(model(), request, stop))
        response.job_id = job.job_id
        return response

    @unary
    async def Explain(self, request: api.ExplainRequest) -> api.ExplainResponse:  # noqa: N802
        job = self.scheduler.book.find(request.job_id)
        model = self._model_of(job)
        # Reading the rows of an ended job again is work as well, and waits for its turn.
        async with self._turn:
            rows = await self.scheduler.archive.with_rows(job) if request.HasField("row") else None
        response = await self._compute(lambda stop: explain(model(), request, rows, stop))
        response.job_id = job.job_id
        return response

    async def _compute(self, work: Callable[[Stop], Answer]) -> Answer:
        """The answer of a thread, which stops early where the caller has gone or its deadline has passed."""
        async with self._turn:
            stop = Stop()
            try:
                return await asyncio.to_thread(work, stop)
            finally:
                stop.set()

    def _model_of(self, job: Job) -> Callable[[], TrainedModel]:
        """How to get the job's model; what runs is copied at once, files are read by whoever calls.

        Raises WrongState."""
        if job.model_path is not None:
            path = job.model_path
            return lambda: read_model(path)
        if job.is_final:
            raise WrongState(f"job {job.job_id} made no step, so there is no model of it")
        if job.training is None or job.prepared is None or not job.training.state.step:
            raise WrongState(f"job {job.job_id} has made no step yet; wait for it ('chainrule watch {job.job_id}')")
        # Copied here, on the event loop, where no step can be committed meanwhile.
        model = TrainedModel.of(job.prepared, job.training.state)
        return lambda: model
