"""What any gRPC tool can ask, without our protos."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from chainrule_server.api.standard_services import MOST_WATCHES, SERVICES
from tests.server.in_process import RunningServer

TIMEOUT_S = 60.0
REFLECTIONS = ["grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"]


def status(server: RunningServer, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(server.channel)
    answer: health_pb2.HealthCheckResponse = stub.Check(
        health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S
    )
    return answer.status


def test_every_service_and_the_whole_server_are_serving_until_it_stops(server: RunningServer) -> None:
    assert set(SERVICES) == {f"chainrule.v1.{name}Service" for name in ("Cluster", "Job", "Data", "Model", "Worker")}
    for service in ("", *SERVICES):
        assert status(server, service) == health_pb2.HealthCheckResponse.SERVING
    stop = server.health.enter_graceful_shutdown()
    asyncio.run_coroutine_threadsafe(stop, server.loop).result(TIMEOUT_S)
    for service in ("", *SERVICES):
        assert status(server, service) == health_pb2.HealthCheckResponse.NOT_SERVING


def test_who_watches_the_health_is_told_that_the_server_stops(server: RunningServer) -> None:
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(
        health_pb2.HealthCheckRequest(service=SERVICES[0]), timeout=TIMEOUT_S
    )
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    stop = server.health.enter_graceful_shutdown()
    asyncio.run_coroutine_threadsafe(stop, server.loop).result(TIMEOUT_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


def test_strangers_can_hold_no_more_than_so_many_watches_open(server: RunningServer) -> None:
    stub = health_pb2_grpc.HealthStub(server.channel)
    request = health_pb2.HealthCheckRequest(service=SERVICES[0])
    watches = [stub.Watch(request, timeout=TIMEOUT_S) for _ in range(MOST_WATCHES)]
    for watch in watches:
        next(watch)
    with pytest.raises(grpc.RpcError) as caught:
        next(stub.Watch(request, timeout=TIMEOUT_S))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status(server, SERVICES[0]) == health_pb2.HealthCheckResponse.SERVING
    # One that ends makes room for another, in a moment.
    watches.pop().cancel()
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        watch = stub.Watch(request, timeout=TIMEOUT_S)
        try:
            next(watch)
            break
        except grpc.RpcError:
            assert time.monotonic() < deadline_s
    for each in (watch, *watches):
        each.cancel()


def test_a_service_that_is_not_there_is_not_found(server: RunningServer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        status(server, "chainrule.v1.NoService")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", REFLECTIONS)
def test_reflection_tells_the_services_and_their_methods(server: RunningServer, name: str) -> None:
    call = server.channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="chainrule.v1.ModelService"),
    ]
    listed, file = call(iter(requests), timeout=TIMEOUT_S)
    names = {service.name for service in listed.list_services_response.service}
    assert {*SERVICES, "grpc.health.v1.Health"} <= names
    described = descriptor_pb2.FileDescriptorProto.FromString(file.file_descriptor_response.file_descriptor_proto[0])
    assert {"Predict", "Explain"} <= {method.name for method in described.service[0].method}


@pytest.mark.parametrize("method", ["JobService/CreateJob", "JobService/WatchJob", "ModelService/Predict"])
def test_bytes_that_are_no_request_are_an_invalid_argument(server: RunningServer, method: str) -> None:
    kind = server.channel.unary_stream if method.endswith("WatchJob") else server.channel.unary_unary
    call = kind(f"/chainrule.v1.{method}", request_serializer=None, response_deserializer=None)
    with pytest.raises(grpc.RpcError) as caught:
        list(call(b"\x0a\x02\xff\xfe", timeout=TIMEOUT_S))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("the request can't be read: ")
