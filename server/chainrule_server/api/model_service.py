"""The RPC methods of ModelService: decode, one call on a plain object in a thread, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from chainrule.v1 import model_service_pb2 as api
from chainrule.v1 import model_service_pb2_grpc
from chainrule_server.grpc_status import unary
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.model_versions import ModelVersions
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.models.cancellation import Stop
from chainrule_server.models.explanation import explain
from chainrule_server.models.prediction import predict
from chainrule_server.models.reduction_explanation import explain_reduction

# More threads than this would take the time of the event loop, on which training depends.
MAX_COMPUTATIONS = 2
Answer = TypeVar("Answer")


@dataclass
class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """What a trained model answers."""

    jobs: JobRegistry
    archive: Archive
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_COMPUTATIONS))

    @unary
    async def Predict(self, request: api.PredictRequest) -> api.PredictResponse:  # noqa: N802
        job = self.jobs.find(request.job_id)
        source = await self._versions.find(job, request.version)
        response = await self._compute(lambda stop: predict(source.model(), request, stop))
        response.job_id = job.job_id
        return response

    @unary
    async def Explain(self, request: api.ExplainRequest) -> api.ExplainResponse:  # noqa: N802
        job = self.jobs.find(request.job_id)
        source = await self._versions.find(job, request.version)
        # Reading the rows of an ended job again is work as well, and waits for its turn.
        async with self._turn:
            rows = await self.archive.with_rows(job) if _needs_rows(request) else None
        response = await self._compute(lambda stop: explain(source.model(), request, rows, stop))
        response.job_id = job.job_id
        return response

    @unary
    async def ExplainReduction(  # noqa: N802
        self, request: api.ExplainReductionRequest
    ) -> api.ExplainReductionResponse:
        job = self.jobs.find(request.job_id)
        source = await self._versions.find(job, request.version)
        async with self._turn:
            rows = await self.archive.with_rows(job)
        response = await self._compute(lambda stop: explain_reduction(source.model(), request, rows, stop))
        response.job_id = job.job_id
        return response

    @unary
    async def ListCheckpoints(self, request: api.ListCheckpointsRequest) -> api.ListCheckpointsResponse:  # noqa: N802
        return await self._versions.listed(self.jobs.find(request.job_id))

    @property
    def _versions(self) -> ModelVersions:
        return ModelVersions(self.archive)

    async def _compute(self, work: Callable[[Stop], Answer]) -> Answer:
        """The answer of a thread, which stops early where the caller has gone or its deadline has passed."""
        async with self._turn:
            stop = Stop()
            try:
                return await asyncio.to_thread(work, stop)
            finally:
                stop.set()


def _needs_rows(request: api.ExplainRequest) -> bool:
    return request.WhichOneof("example") in ("row", "shard")
