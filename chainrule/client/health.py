"""Whether a server is serving, by grpc.health.v1. It loads little: health checks ask every few seconds, all day."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICES = tuple(f"chainrule.v1.{name}Service" for name in ("Cluster", "Job", "Data", "Model", "Worker"))


def service_health(channel: grpc.Channel, *, timeout_s: float) -> dict[str, str]:
    """The status of each service, "SERVING" or another; "" is the server as a whole. Raises grpc.RpcError."""
    stub = health_pb2_grpc.HealthStub(channel)
    found = {}
    for name in ("", *SERVICES):
        status = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=timeout_s).status
        found[name] = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    return found
