"""A parameter server's step over raw sockets: push all, barrier, average, update, pull all; no protocol at all."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
# Elements that stay in the cache between the sum, the mean and the update.
BLOCK = 1 << 16
TIMEOUT_S = 120.0
Address = tuple[str, int] | str


def connected(family: str, address: Address) -> socket.socket:
    """A client's socket."""
    connection = socket.socket(socket.AF_INET if family == "tcp" else socket.AF_UNIX)
    connection.settimeout(TIMEOUT_S)
    connection.connect(address)
    return without_delay(connection)


def without_delay(connection: socket.socket) -> socket.socket:
    """The socket, with small segments sent at once."""
    if connection.family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection: socket.socket, vector: Vector) -> None:
    """Fill the vector."""
    rest = memoryview(vector).cast("B")
    while rest:
        count = connection.recv_into(rest)
        if not count:
            raise ConnectionError("the other side has gone")
        rest = rest[count:]


def work(family: str, address: Address, element_count: int, steps: int) -> None:
    """A worker: push a gradient, pull the parameters."""
    connection = connected(family, address)
    gradient = np.ones(element_count, np.float32)
    parameters = np.zeros(element_count, np.float32)
    for _ in range(steps):
        connection.sendall(memoryview(gradient).cast("B"))
        receive(connection, parameters)
    connection.close()


def serve(connections: Sequence[socket.socket], element_count: int, steps: int) -> list[float]:
    """The time of each step at the server, s."""
    parameters = np.zeros(element_count, np.float32)
    gradients = [np.zeros(element_count, np.float32) for _ in connections]
    scratch = np.empty(min(BLOCK, element_count), np.float32)
    rate = np.float32(0.001 / len(connections))
    times_s = []
    for _ in range(steps):
        started_s = time.perf_counter()
        for connection, gradient in zip(connections, gradients, strict=True):
            receive(connection, gradient)
        for start in range(0, element_count, BLOCK):
            part = parameters[start : start + BLOCK]
            total = scratch[: len(part)]
            total[:] = gradients[0][start : start + BLOCK]
            for gradient in gradients[1:]:
                total += gradient[start : start + BLOCK]
            total *= rate
            part -= total
        for connection in connections:
            connection.sendall(memoryview(parameters).cast("B"))
        times_s.append(time.perf_counter() - started_s)
    return times_s


def main() -> None:
    """Run and print the median step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=("tcp", "unix"), default="tcp")
    parser.add_argument("--elements", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    warm_up = max(2, min(50, options.steps // 10))
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_INET if options.family == "tcp" else socket.AF_UNIX) as listener,
    ):
        listener.bind(("127.0.0.1", 0) if options.family == "tcp" else str(Path(folder) / "socket"))
        listener.listen(options.workers)
        listener.settimeout(TIMEOUT_S)
        steps = warm_up + options.steps
        processes = [
            multiprocessing.get_context("spawn").Process(
                target=work, args=(options.family, listener.getsockname(), options.elements, steps), daemon=True
            )
            for _ in range(options.workers)
        ]
        for process in processes:
            process.start()
        connections = []
        for _ in processes:
            connection = without_delay(listener.accept()[0])
            connection.settimeout(TIMEOUT_S)
            connections.append(connection)
        times_s = serve(connections, options.elements, steps)[warm_up:]
        for process in processes:
            process.join(TIMEOUT_S)
    sys.stdout.write(json.dumps({"step_ms_median": 1000 * statistics.median(times_s), "steps": len(times_s)}) + "\n")


if __name__ == "__main__":
    main()
