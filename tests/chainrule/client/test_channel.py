"""Which calls gRPC repeats by itself."""

from __future__ import annotations

import json

from chainrule.client.channel import NOT_REPEATABLE, REPEATABLE, channel_options
from chainrule.v1 import cluster_service_pb2, data_service_pb2, job_service_pb2, model_service_pb2

CLIENT_FILES = (cluster_service_pb2, data_service_pb2, job_service_pb2, model_service_pb2)


def test_each_call_of_a_client_is_known_to_be_safe_to_repeat_or_not() -> None:
    calls = {
        (service.full_name, method.name)
        for file in CLIENT_FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    repeated = {(service, method) for service, methods in REPEATABLE.items() for method in methods}
    others = {(service, method) for service, methods in NOT_REPEATABLE.items() for method in methods}
    assert not repeated & others
    assert calls == repeated | others


def test_grpc_is_told_to_repeat_these_calls_and_no_others() -> None:
    config = json.loads(dict(channel_options(repeats=True))["grpc.service_config"])
    (policy,) = config["methodConfig"]
    named = {(name["service"], name["method"]) for name in policy["name"]}
    assert named == {(service, method) for service, methods in REPEATABLE.items() for method in methods}
    assert "grpc.service_config" not in dict(channel_options(repeats=False))
