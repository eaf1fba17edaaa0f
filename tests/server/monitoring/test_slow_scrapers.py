"""Who asks for metrics slowly, or not to the end, leaves no traceback and nothing on the server's standard error."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule_server.monitoring import metrics_endpoint
from chainrule_server.monitoring.metrics_endpoint import MetricsEndpoint
from tests.server.in_process import running_server

TIMEOUT_S = 60.0


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(metrics_endpoint._Handler, "timeout", 0.2)
    with running_server(tmp_path) as running:
        endpoint = MetricsEndpoint()

        async def start() -> str:
            return endpoint.start(running.scheduler, host="127.0.0.1", port=0)

        found = asyncio.run_coroutine_threadsafe(start(), running.loop).result(TIMEOUT_S)
        host, _, port = found.rpartition(":")
        yield host, int(port)
        endpoint.close()


def test_who_asks_slowly_or_goes_leaves_no_traceback(
    address: tuple[str, int], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for sent in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: x\r\n", b"\xff\x00\r\n\r\n"):
        with socket.create_connection(address, timeout=TIMEOUT_S) as slow:
            slow.sendall(sent)
            while slow.recv(4096):  # until the server has had enough of it
                pass
    for _ in range(5):
        gone = socket.create_connection(address, timeout=TIMEOUT_S)
        gone.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        # With this the connection is reset, whatever is on its way.
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
    time.sleep(0.1)
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/metrics", timeout=TIMEOUT_S) as answer:
        assert b"chainrule_" in answer.read()
    assert capfd.readouterr().err == ""
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
