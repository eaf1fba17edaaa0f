"""The gRPC server with all of its services, not yet listening."""

from __future__ import annotations

import resource
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health

from chainrule.holding.link_offers import LinkOffers
from chainrule.transport.wire import KEEPALIVE_OPTIONS
from chainrule.transport.wire_codec import add_worker_service
from chainrule.v1 import cluster_service_pb2_grpc, data_service_pb2_grpc, job_service_pb2_grpc, model_service_pb2_grpc
from chainrule_server.access.connection_limits import connection_limit, connection_options
from chainrule_server.api.cluster_service import ClusterService
from chainrule_server.api.data_service import DataService
from chainrule_server.api.job_service import JobService
from chainrule_server.api.model_service import ModelService
from chainrule_server.api.request_decoding import ReadableRequests
from chainrule_server.api.standard_services import add_standard_services
from chainrule_server.api.worker_service import WorkerService
from chainrule_server.data.uploads import Uploads
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.jobs.submission import Submission

LENGTH_READ = 4


async def make_server(
    scheduler: Scheduler,
    uploads: Uploads,
    *,
    link_offers: LinkOffers | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """The server, and what tells its health. Arguments as in DataService and WorkerService.

    interceptors: they come before ours."""
    # Without so_reuseport = 0 a second server would share the port, and each would get half of the calls.
    limits = scheduler.limits
    # What is a little too long is refused by us, with the name of the setting; what is far too long by gRPC, unread.
    most_bytes = LENGTH_READ * limits.max_message_bytes
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", most_bytes),
        *connection_options(connection_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0])),
        *KEEPALIVE_OPTIONS,
    ]
    server = grpc.aio.server(interceptors=[*interceptors, ReadableRequests(limits)], options=options)
    submission = Submission(scheduler, uploads.data_sets)
    job_service_pb2_grpc.add_JobServiceServicer_to_server(JobService(scheduler, submission), server)
    data_service_pb2_grpc.add_DataServiceServicer_to_server(DataService(scheduler.jobs, uploads), server)
    cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server(ClusterService(scheduler.sharing), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(scheduler.jobs, scheduler.archive), server)
    add_worker_service(WorkerService(scheduler.sharing, link_offers), server)
    return server, await add_standard_services(server)
