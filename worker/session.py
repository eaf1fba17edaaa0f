"""A worker's connection to the server: it joins, answers, and joins again when the connection is lost.

The order of the stream's messages is described in worker_service.proto.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import numpy as np
from threadpoolctl import threadpool_info

from chainrule import wire
from chainrule.v1 import worker_service_pb2 as pb
from chainrule.v1 import worker_service_pb2_grpc
from engine.errors import EngineError
from engine.microbatch import ShardRows
from worker.held_job import HeldJob, decode_rows

log = logging.getLogger(__name__)
READ_SHARD_TIMEOUT_S = 600.0
FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 2.0

Stream = grpc.aio.StreamStreamCall[pb.TrainRequest, pb.TrainResponse]


class ServerGone(Exception):
    """The server could not be reached within the time allowed."""


class Refused(Exception):
    """The server ended the stream and said why."""


@dataclass
class Session:
    """A worker's life. connect_timeout_s: how long the server may be away, at the start and later."""

    address: str
    name: str
    connect_timeout_s: float
    jitter: Callable[[], float] = random.random
    _held: dict[str, HeldJob] = field(default_factory=dict)

    async def run(self) -> None:
        """Work until cancelled. Raises ServerGone, Refused."""
        options: list[tuple[str, int]] = [*wire.KEEPALIVE_OPTIONS]
        if self.address.startswith(("127.", "localhost", "[::1]")):
            options.append(("grpc.enable_http_proxy", 0))
        backoff_s = FIRST_BACKOFF_S
        away_since_s = time.monotonic()
        while True:
            async with grpc.aio.insecure_channel(self.address, options=options) as channel:
                await self._connect(channel, left_s=self.connect_timeout_s - (time.monotonic() - away_since_s))
                connected_s = time.monotonic()
                try:
                    await self._work(worker_service_pb2_grpc.WorkerServiceStub(channel))
                    reason = "the server ended the stream"
                except grpc.aio.AioRpcError as error:
                    if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
                        raise Refused(f"the server refused this worker: {error.details()}") from error
                    reason = f"{error.code().name}: {error.details()}"
            self._held.clear()
            away_since_s = time.monotonic()
            if away_since_s - connected_s > LONGEST_BACKOFF_S:
                backoff_s = FIRST_BACKOFF_S
            log.warning("connection lost (%s); joining again", reason)
            await asyncio.sleep(backoff_s * (0.5 + self.jitter()))
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    async def _connect(self, channel: grpc.aio.Channel, *, left_s: float) -> None:
        try:
            await asyncio.wait_for(channel.channel_ready(), max(left_s, 0.001))
        except TimeoutError:
            raise ServerGone(
                f"no server answers at {self.address} (waited {self.connect_timeout_s:g} s); start one with "
                "'chainrule server', or check the address"
            ) from None

    async def _work(self, stub: worker_service_pb2_grpc.WorkerServiceStub) -> None:
        stream: Stream = stub.Train()
        try:
            await stream.write(pb.TrainRequest(hello=_hello(self.name)))
            log.info("joined %s", self.address)
            current: HeldJob | None = None
            while isinstance(response := await stream.read(), pb.TrainResponse):
                kind = response.WhichOneof("message")
                if kind == "assignment":
                    current = await self._accept(stub, stream, response.assignment)
                elif kind == "release":
                    self._held.pop(response.release.job_id, None)
                elif current is None:
                    continue
                elif kind == "part":
                    current.receive_part(response.part)
                elif kind == "order":
                    for message in current.compute(response.order):
                        await stream.write(message)
        except asyncio.InvalidStateError:
            # The stream ended while a message was being written; its status says why.
            log.debug("the stream ended during a write")
        finally:
            stream.cancel()
        if await stream.code() not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
            raise grpc.aio.AioRpcError(
                await stream.code(),
                await stream.initial_metadata(),
                await stream.trailing_metadata(),
                details=await stream.details(),
            )

    async def _accept(
        self, stub: worker_service_pb2_grpc.WorkerServiceStub, stream: Stream, assignment: pb.Assignment
    ) -> HeldJob | None:
        async def read_shard(shard: int, validation: bool) -> ShardRows:
            request = pb.ReadShardRequest(job_id=assignment.job_id, shard=shard, validation=validation)
            responses = [part async for part in stub.ReadShard(request, timeout=READ_SHARD_TIMEOUT_S)]
            return decode_rows(responses, assignment)

        try:
            held = HeldJob.accept(assignment, self._held.get(assignment.job_id))
            await held.load(read_shard)
        except EngineError as error:
            failure = pb.Failure(job_id=assignment.job_id, generation=assignment.generation, message=str(error))
            await stream.write(pb.TrainRequest(failure=failure))
            return None
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            # The job ended while its shards were being read; its release is on the way.
            return None
        self._held = {assignment.job_id: held}
        ready = pb.Ready(job_id=assignment.job_id, generation=assignment.generation)
        await stream.write(pb.TrainRequest(ready=ready))
        return held


def _hello(name: str) -> pb.Hello:
    blas = "; ".join(
        f"{library.get('internal_api')} {library.get('version')} {library.get('architecture', '')}".strip()
        for library in threadpool_info()
        if library.get("user_api") == "blas"
    )
    return pb.Hello(name=name, process_id=os.getpid(), numpy_version=np.__version__, blas=blas)
