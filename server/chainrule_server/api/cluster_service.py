"""The RPC methods about workers: decode, one call on a plain object, encode."""

from __future__ import annotations

import math
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from chainrule.v1 import cluster_service_pb2 as api
from chainrule.v1 import cluster_service_pb2_grpc, job_pb2
from chainrule_server.errors import InvalidRequest
from chainrule_server.grpc_status import unary
from chainrule_server.jobs.worker_sharing import WorkerSharing
from chainrule_server.workers.departure import Departure
from chainrule_server.workers.worker import Worker


@dataclass
class ClusterService(cluster_service_pb2_grpc.ClusterServiceServicer):
    """Who computes."""

    sharing: WorkerSharing

    @unary
    async def ListWorkers(self, request: api.ListWorkersRequest) -> api.ListWorkersResponse:  # noqa: ARG002, N802
        workers = [self._message(record) for record in self.sharing.pool.registry.connected.values()]
        return api.ListWorkersResponse(workers=workers)

    @unary
    async def ReportWorkerEnd(self, request: api.ReportWorkerEndRequest) -> api.ReportWorkerEndResponse:  # noqa: N802
        missing = [(name, "is missing") for name in ("worker", "details") if not getattr(request, name).strip()]
        if missing:
            raise InvalidRequest(missing)
        self.sharing.report_departure(request.worker, Departure(job_pb2.LOSS_REASON_PROCESS_ENDED, request.details))
        return api.ReportWorkerEndResponse()

    def _message(self, record: Worker) -> api.Worker:
        hello, lease = record.hello, record.lease
        fraction, seconds = math.modf(record.connected_at_s)
        worker = api.Worker(
            name=record.name,
            address=record.address,
            host=hello.host,
            process_id=hello.process_id,
            transport=self.sharing.pool.transport_of(record.name),
            connect_time=Timestamp(seconds=int(seconds), nanos=int(fraction * 1e9)),
            silent_s=lease.silent_s,
            lease_s=lease.lease_s,
            numpy_version=hello.numpy_version,
            blas=hello.blas,
            instructions=hello.instructions,
            numba=hello.numba,
            processor=hello.processor,
        )
        training = self.sharing.training_of(record.name)
        if training is not None:
            shards = training.shards_of(record.name)
            worker.job_id, worker.first_shard, worker.shard_count = training.job_id, shards.start, len(shards)
            worker.rows_per_second = training.rows_per_second(record.name)
        return worker
