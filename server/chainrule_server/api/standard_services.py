"""What every gRPC tool can ask without our protos: is it serving (grpc.health.v1), and what (server reflection).

Reflection is there under both of its names: the messages of grpc.reflection.v1 are those of v1alpha, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from chainrule.v1 import cluster_service_pb2, data_service_pb2, job_service_pb2, model_service_pb2, worker_service_pb2
from chainrule_server.errors import LimitExceeded
from chainrule_server.grpc_status import abort

SERVICES = tuple(
    service.full_name
    for file in (cluster_service_pb2, job_service_pb2, data_service_pb2, model_service_pb2, worker_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
# Of Health/Watch, which nobody needs to show who they are for. Whoever asks again and again uses Check.
MOST_WATCHES = 64
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class LimitedHealth(health.aio.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """The health service whose open streams are counted: each holds memory for as long as a stranger likes."""

    def __init__(self) -> None:
        super().__init__()
        self._watches = 0

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """See the protocol. One stream too many is RESOURCE_EXHAUSTED."""
        if self._watches >= MOST_WATCHES:
            message = f"{MOST_WATCHES} streams watch the health of this server, and more it doesn't take; call Check"
            await abort(context, LimitExceeded(message))
        self._watches += 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches -= 1


async def add_standard_services(server: grpc.aio.Server) -> health.aio.HealthServicer:
    """Add both to a server. The answer's `enter_graceful_shutdown` makes everything NOT_SERVING."""
    servicer = LimitedHealth()
    # "", the server as a whole, is SERVING from the start.
    for name in SERVICES:
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    _add_reflection([*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return servicer


def _add_reflection(names: Sequence[str], server: grpc.aio.Server) -> None:
    reflection.enable_server_reflection(names, server)
    method = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(REFLECTION_V1, {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((handler,))
