"""Nothing waits for ever: calls have deadlines or pings that find a dead peer, and no healthy peer pings too much."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool

from chainrule.client.blocking.client import Client
from chainrule.client.channel import channel_options
from chainrule.transport.wire import KEEPALIVE_OPTIONS
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import job_service_pb2_grpc
from chainrule_server.api.standard_services import SERVICES

ROOT = Path(__file__).resolve().parents[1]
NOTICED_S = 20
SPEED_UP = 20
TIMEOUT_S = 60.0
# Of a client, what calls the method that it is given, with a deadline.
CALLERS = {"_ask", "_read"}
# After kill -9; and a worker's link, where pings and the lease end the wait.
SURE_TO_END = {"chainrule/local/processes.py", "worker/chainrule_worker/server_links.py"}


def calls(package: str) -> Iterator[tuple[str, ast.Call, str]]:
    """(file, call, name) of every call of an attribute in a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.parent.name != "v1":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    yield str(path.relative_to(ROOT)), node, node.func.attr


def has_deadline(call: ast.Call) -> bool:
    return "timeout" in {keyword.arg for keyword in call.keywords}


@pytest.mark.parametrize(("package", "least"), [("chainrule", 48), ("worker", 1)])
def test_every_call_of_a_server_has_a_deadline(package: str, least: int) -> None:
    pool = descriptor_pool.Default()
    methods = {method.name for service in SERVICES for method in pool.FindServiceByName(service).methods}
    found = list(calls(package))
    assert {(file, name) for file, call, name in found if name in methods and not has_deadline(call)} == set()
    given = [
        (name, argument.attr)
        for _, call, name in found
        for argument in call.args
        if isinstance(argument, ast.Attribute) and argument.attr in methods
    ]
    assert {name for name, _ in given} <= CALLERS
    # This test would show nothing if it found no calls.
    assert len(given) + sum(name in methods for _, _, name in found) >= least


@pytest.mark.parametrize("kind", ["aio", "blocking"])
def test_who_calls_the_method_that_it_is_given_gives_it_a_deadline(kind: str) -> None:
    tree = ast.parse((ROOT / "chainrule" / "client" / kind / "calls.py").read_text())
    functions = {each.name: each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    for name in CALLERS:
        found = [
            each
            for each in ast.walk(functions[name])
            if isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id == "method"
        ]
        assert [has_deadline(call) for call in found] == [True], name


@pytest.mark.parametrize("package", ["chainrule", "worker"])
def test_every_wait_of_a_thread_has_a_deadline(package: str) -> None:
    without = {
        file
        for file, call, name in calls(package)
        if name in ("wait", "acquire", "join", "result", "get") and not call.args and not call.keywords
        if not file.startswith(ON_THE_EVENT_LOOP)
    }
    assert without <= SURE_TO_END


# Where no thread waits but the event loop.
ON_THE_EVENT_LOOP = ("server/", "chainrule/holding/")
# What the server's event loop waits for without asyncio.timeout, wait_for or a timeout, and what ends that.
ENDED_BY = {
    ("__main__.py", "stop.wait()"): "SIGTERM, SIGINT, or the end of standard input",
    ("journal.py", "done"): "the disk takes it, which is tried again every second; who can't wait uses written_at_once",
    ("journal.py", "asyncio.wait((written, trouble), return_when=asyncio.FIRST_COMPLETED)"): "one of both",
    ("link_offers.py", "readable.wait()"): "the timeout of the handshake, around every use of it",
    (
        "job_life.py",
        "self._left.wait()",
    ): "what was read or stored; a step's end, the job's, or leases",
    ("recorder.py", "self._writing"): "the checkpoint is written, or that failed",
    ("worker_service.py", "connected.stream.outgoing.get()"): "the worker's end, or that of its lease",
}


def awaited(node: ast.AST, *, is_bounded: bool = False) -> Iterator[tuple[str, bool]]:
    """(what is awaited, whether a timeout stands around it) of every wait for an event, a queue, a lock or a future.

    A task that is awaited as a call, by asyncio.shield or gather, has waits of its own, which are found there."""
    if isinstance(node, ast.AsyncWith):
        is_bounded = is_bounded or any("timeout" in ast.unparse(item.context_expr) for item in node.items)
    if isinstance(node, ast.Await):
        called = node.value.func if isinstance(node.value, ast.Call) else None
        words = ast.unparse(node.value)
        waits = isinstance(called, ast.Attribute) and called.attr in ("wait", "get", "acquire", "join")
        if waits or isinstance(node.value, ast.Name | ast.Attribute):
            yield words, is_bounded or "timeout=" in words
    for child in ast.iter_child_nodes(node):
        yield from awaited(child, is_bounded=is_bounded)


def test_every_wait_of_the_server_s_event_loop_has_a_deadline_or_something_that_is_sure_to_end_it() -> None:
    without = {
        (path.name, words)
        for folder in ON_THE_EVENT_LOOP
        for path in sorted((ROOT / folder).rglob("*.py"))
        for words, is_bounded in awaited(ast.parse(path.read_text()))
        if not is_bounded
    }
    assert without == ENDED_BY.keys()


def scaled(options: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return [(name, value // SPEED_UP if name.endswith("_ms") else value) for name, value in options]


def test_a_dead_peer_is_noticed_within_20_s_by_either_side() -> None:
    for options in (dict(KEEPALIVE_OPTIONS), dict(channel_options(repeats=False))):
        for timeout in ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
            assert options["grpc.keepalive_time_ms"] + options[timeout] <= NOTICED_S * 1000
        # The server takes pings at this rate.
        assert (
            options["grpc.keepalive_time_ms"]
            > dict(KEEPALIVE_OPTIONS)["grpc.http2.min_recv_ping_interval_without_data_ms"]
        )


SERVER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import grpc
from chainrule.v1 import job_service_pb2, job_service_pb2_grpc
class Silent(job_service_pb2_grpc.JobServiceServicer):
    def WatchJob(self, request, context):
        yield job_service_pb2.WatchJobResponse()
        time.sleep(60)
options = [(name, int(value)) for name, value in (each.split("=") for each in sys.argv[1:])]
server = grpc.server(ThreadPoolExecutor(2), options=options)
job_service_pb2_grpc.add_JobServiceServicer_to_server(Silent(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
import os; os._exit(0)
"""


class Quiet:
    """A server of its own process with one stream on which nothing comes, and what ends the stream."""

    def __init__(self, options: list[tuple[str, int]]) -> None:
        command = [sys.executable, "-P", "-c", SERVER, *(f"{name}={value}" for name, value in options)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=_environment())
        assert self.process.stdout is not None
        address = f"127.0.0.1:{int(self.process.stdout.readline())}"
        client = [option for option in channel_options(repeats=False) if isinstance(option[1], int)]
        self.channel = grpc.insecure_channel(address, [*scaled(client), ("grpc.enable_http_proxy", 0)])
        stub = job_service_pb2_grpc.JobServiceStub(self.channel)
        self.call = stub.WatchJob(api.WatchJobRequest(), timeout=TIMEOUT_S)
        try:
            next(self.call)
        except BaseException:
            self.__exit__()
            raise
        self.ended = threading.Event()
        self.call.add_callback(self.ended.set)

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        self.call.cancel()
        self.channel.close()
        self.process.kill()
        self.process.communicate()


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_a_stream_without_messages_is_not_ended_for_its_pings() -> None:
    """Everything twenty times as fast: so many pings as in a minute."""
    with Quiet(scaled(KEEPALIVE_OPTIONS)) as quiet:
        assert not quiet.ended.wait(3.0)
    # With gRPC's own settings the server ends it, or this test would show nothing.
    with Quiet([]) as quiet:
        assert quiet.ended.wait(TIMEOUT_S)
        assert "too_many_pings" in quiet.call.details() or "Too many pings" in quiet.call.details()


def test_a_server_that_stands_still_is_noticed() -> None:
    with Quiet(scaled(KEEPALIVE_OPTIONS)) as quiet:
        quiet.process.send_signal(signal.SIGSTOP)
        assert quiet.ended.wait(TIMEOUT_S / 2)
        assert quiet.call.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_proxy_of_the_environment_is_passed_by_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    from tests.server.in_process import running_server

    with running_server(tmp_path) as server:
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        with Client(server.address) as client:
            assert client.list_jobs() == []
