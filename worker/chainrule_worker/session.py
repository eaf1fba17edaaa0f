"""A worker's connection to the server: it joins, answers, and joins again when the connection is lost.

The order of the stream's messages is described in worker_service.proto. One thread does everything, so nothing stands
between a message's arrival and the computing that it asks for.
"""

from __future__ import annotations

import logging
import queue
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from chainrule.process.lifecycle import Stopped, StopSignal
from chainrule.process.logs import log_event
from chainrule.security.credentials import Credentials
from chainrule.security.secure_channel import open_channel, why_no_connection
from chainrule.transport import wire
from chainrule.transport.local_link.listener import CannotShare, connect
from chainrule.transport.local_link.segment import SegmentError
from chainrule.transport.local_link.socket_connection import close_all
from chainrule.transport.wire_codec import RawPart
from chainrule.v1 import worker_service_pb2 as pb
from chainrule.v1 import worker_service_pb2_grpc
from chainrule_engine.errors import EngineError
from chainrule_engine.microbatch import ShardRows
from chainrule_worker.assigned_job import AssignedJob, ReadShard, decode_rows
from chainrule_worker.heartbeat import Heartbeat
from chainrule_worker.machine import hello
from chainrule_worker.server_links import LinkLost, ServerLink, ServerSocketLink, ServerStreamLink
from chainrule_worker.vectors import WrongMessage

log = logging.getLogger(__name__)
READ_SHARD_TIMEOUT_S = 600.0
LOCAL_LINK_TIMEOUT_S = 5.0
STREAM_END_TIMEOUT_S = 1.0
FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 2.0
LONGEST_MESSAGE = 1000
TRANSPORTS = ("auto", "grpc", "shared-memory")
# How long a connection may take before it is asked whether TLS is what fails.
TLS_LOOK_S = 2.0
REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)


class ServerGone(Exception):
    """The server could not be reached within the time allowed."""


class Refused(Exception):
    """The server ended the stream and said why, or this worker can't do what it was told to."""


@dataclass
class Session:
    """A worker's life. connect_timeout_s: how long the server may be away, at the start and later."""

    address: str
    name: str
    connect_timeout_s: float
    stop: StopSignal
    transport: str = "auto"
    credentials: Credentials = field(default_factory=Credentials)
    jitter: Callable[[], float] = random.random
    _held: dict[str, AssignedJob] = field(default_factory=dict)
    # What the server gave for reading shards.
    _session: bytes = b""

    def __post_init__(self) -> None:
        self.stop.farewell = queue.SimpleQueue()
        self._signs = Heartbeat(self.stop.farewell)

    def run(self) -> None:
        """Work until an exception ends it. Raises ServerGone, Refused, Stopped, CredentialsError."""
        log.info("connecting to %s", self.address, extra=log_event("connecting", worker=self.name))
        backoff_s = FIRST_BACKOFF_S
        away_since_s = time.monotonic()
        while True:
            with open_channel(self.address, self.credentials, wire.KEEPALIVE_OPTIONS) as channel:
                self._connect(channel, left_s=self.connect_timeout_s - (time.monotonic() - away_since_s))
                connected_s = time.monotonic()
                stream = ServerStreamLink(channel)
                try:
                    self._work(stream, worker_service_pb2_grpc.WorkerServiceStub(channel))
                except LinkLost as error:
                    if error.code in REFUSALS:
                        raise Refused(f"the server refused this worker: {error}") from error
                    reason = str(error)
                except Stopped:
                    self._signs.say_goodbye(self.stop.name)
                    raise
                finally:
                    self._signs.end()
                    stream.close()
            self._held.clear()
            away_since_s = time.monotonic()
            if away_since_s - connected_s > LONGEST_BACKOFF_S:
                backoff_s = FIRST_BACKOFF_S
            log.warning(
                "connection lost (%s); joining again", reason, extra=log_event("connection_lost", worker=self.name)
            )
            with self.stop.waiting():
                time.sleep(backoff_s * (0.5 + self.jitter()))
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def _connect(self, channel: grpc.Channel, *, left_s: float) -> None:
        ready = grpc.channel_ready_future(channel)
        until_s = time.monotonic() + max(left_s, 0.001)
        try:
            with self.stop.waiting():
                try:
                    ready.result(min(TLS_LOOK_S, max(left_s, 0.001)))
                except grpc.FutureTimeoutError:
                    # TLS that fails now fails for ever, and gRPC wouldn't say so.
                    if (trouble := why_no_connection(self.address, self.credentials)) is not None:
                        raise Refused(trouble) from None
                    ready.result(max(until_s - time.monotonic(), 0.001))
        except grpc.FutureTimeoutError:
            raise ServerGone(
                f"no server answers at {self.address} (waited {self.connect_timeout_s:g} s); start one with "
                "'chainrule server', or check the address"
            ) from None
        finally:
            ready.cancel()

    def _work(self, stream: ServerStreamLink, stub: worker_service_pb2_grpc.WorkerServiceStub) -> None:
        """Join and serve until the stream is lost. Raises LinkLost, Refused."""
        stream.send(pb.TrainRequest(hello=hello(self.name, wants_local_link=self.transport != "grpc")))
        with self.stop.waiting():
            welcome, _ = stream.next_message()
        if isinstance(welcome, RawPart) or not welcome.HasField("welcome"):
            raise Refused(
                f"{self.address} answers hello with something else; is it a chainrule server of this version?"
            )
        self._session = welcome.welcome.session
        self._signs.begin(stream, interval_s=welcome.welcome.alive_interval_s)
        local = self._local_link(stream, welcome.welcome)
        if local is not None:
            log.info("joined %s, sharing memory", self.address, extra=log_event("joined", worker=self.name))
            try:
                self._serve(local, stub)
            except LinkLost as error:
                local.close()  # so that the server sees it too
                self._go_on_without_memory(stream, error)
            finally:
                local.close()
        else:
            log.info("joined %s over gRPC", self.address, extra=log_event("joined", worker=self.name))
        self._serve(stream, stub)

    def _go_on_without_memory(self, stream: ServerStreamLink, error: LinkLost) -> None:
        """Return where the stream may serve instead of the local link. Raises LinkLost, Refused."""
        with self.stop.waiting():
            # With a server that has died the stream ends too, but a moment later.
            is_strict = self.transport == "shared-memory"
            if stream.ends_within(STREAM_END_TIMEOUT_S if is_strict else 0.0):
                stream.next_message()  # it raises what the server said
        if is_strict:
            raise Refused(
                f"memory is shared with the server at {self.address} no longer: {error}; its log may say more; "
                "use --transport auto"
            ) from error
        lost = log_event("link_lost", worker=self.name)
        log.warning("memory is shared no longer (%s); vectors go over gRPC", error, extra=lost)
        # Where the server still waits for the link, it need not.
        stream.send(pb.TrainRequest(link_declined=pb.LinkDeclined(reason=str(error))))

    def _local_link(self, stream: ServerStreamLink, welcome: pb.Welcome) -> ServerSocketLink | None:
        """The local link that the server offers, if it can be had. Raises Refused where it must and can't."""
        if self.transport == "grpc":
            return None
        reason = "the server offers none"
        if welcome.HasField("local_link"):
            offer, link = welcome.local_link, None
            try:
                with self.stop.waiting():
                    connection, value = connect(offer.address, offer.token, timeout_s=LOCAL_LINK_TIMEOUT_S)
                link = ServerSocketLink(connection, stream)
                link.send(pb.TrainRequest(link_proof=pb.LinkProof(value=value)))
                return link
            except (CannotShare, LinkLost) as error:
                reason = str(error)
                if link is not None:
                    link.close()
        if self.transport == "shared-memory":
            raise Refused(f"memory can't be shared with the server at {self.address}: {reason}; use --transport auto")
        log.info("memory is not shared with the server: %s", reason, extra=log_event("no_link", worker=self.name))
        if welcome.HasField("local_link"):
            stream.send(pb.TrainRequest(link_declined=pb.LinkDeclined(reason=reason)))
        return None

    def _serve(self, link: ServerLink, stub: worker_service_pb2_grpc.WorkerServiceStub) -> None:
        """Do what the server says until the link is lost. Raises LinkLost."""
        current: AssignedJob | None = None
        waiting = self.stop.waiting
        while True:
            with waiting():
                response, descriptors = link.next_message()
            self._signs.works()
            try:
                if isinstance(response, RawPart):
                    if current is not None:
                        current.pull_part(response)
                    continue
                kind = response.WhichOneof("message")
                if kind == "order":
                    if current is not None:
                        for answer in current.compute(response.order):
                            link.send(pb.TrainRequest(partial_sum=answer))
                    continue
            except WrongMessage as error:
                raise Refused(
                    f"the server at {self.address} broke the protocol: {error}; is it of this version?"
                ) from error
            except LinkLost:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the server is to know, and decides
                if current is not None:
                    _tell_failure(link, current.assignment, error)
                current = None
                continue
            if kind == "help":
                self._help(link, stub, current, response.help, descriptors)
            elif kind == "assignment":
                current = self._accept(link, stub, response.assignment, descriptors)
            elif kind == "release":
                job_id = response.release.job_id
                self._held.pop(job_id, None)
                if current is not None and current.assignment.job_id == job_id:
                    current = None

    def _help(
        self,
        link: ServerLink,
        stub: worker_service_pb2_grpc.WorkerServiceStub,
        current: AssignedJob | None,
        asked: pb.Help,
        descriptors: tuple[int, ...],
    ) -> None:
        """Compute for another worker. Raises LinkLost."""
        assignment = asked.assignment
        try:
            if current is not None and current.assignment.generation == assignment.generation:
                for answer in current.help(asked, descriptors, self._reader(stub, assignment)):
                    link.send(pb.TrainRequest(partial_sum=answer))
        except grpc.RpcError as error:
            _check_moved_on(error)
        except LinkLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the server asks another
            _tell_failure(link, assignment, error, is_of_help=True)
        finally:
            close_all(descriptors)

    def _reader(self, stub: worker_service_pb2_grpc.WorkerServiceStub, assignment: pb.Assignment) -> ReadShard:
        def read_shard(shard: int, validation: bool) -> ShardRows:
            request = pb.ReadShardRequest(
                job_id=assignment.job_id, shard=shard, validation=validation, session=self._session
            )
            responses = []
            with self.stop.waiting():
                for response in stub.ReadShard(request, timeout=READ_SHARD_TIMEOUT_S):
                    responses.append(response)
                    self._signs.works()
            return decode_rows(responses, assignment)

        return read_shard

    def _accept(
        self,
        link: ServerLink,
        stub: worker_service_pb2_grpc.WorkerServiceStub,
        assignment: pb.Assignment,
        descriptors: tuple[int, ...],
    ) -> AssignedJob | None:
        try:
            before = self._held.get(assignment.job_id)
            held = AssignedJob.accept(assignment, before, link=link, descriptors=descriptors, worked=self._signs.works)
            with self._signs.loading():
                held.load(self._reader(stub, assignment))
        except SegmentError as error:
            # Not the job's fault: over gRPC it may go on.
            raise LinkLost(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        except grpc.RpcError as error:
            _check_moved_on(error)
            return None
        except LinkLost:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            _tell_failure(link, assignment, error)
            return None
        finally:
            close_all(descriptors)
        self._held = {assignment.job_id: held}
        ready = pb.Ready(job_id=assignment.job_id, generation=assignment.generation)
        link.send(pb.TrainRequest(ready=ready))
        return held


def _check_moved_on(error: grpc.RpcError) -> None:
    """Return where the job ended, or the shards went to others, while they were read: what follows is on the way.

    Raises LinkLost otherwise."""
    if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED):
        raise LinkLost(error.code(), f"{error.code().name}: {error.details()}") from error


def _tell_failure(link: ServerLink, assignment: pb.Assignment, error: Exception, *, is_of_help: bool = False) -> None:
    """Tell the server why this worker can't go on with a job, or can't help with it. Raises LinkLost."""
    # Any worker would find the same wrong with a formula or a setting.
    is_of_job = isinstance(error, EngineError)
    extra, unexpected = log_event("job_failed", job=assignment.job_id), None if is_of_job else error
    log.error("job %s can't be computed here", assignment.job_id, exc_info=unexpected, extra=extra)
    failure = pb.Failure(
        job_id=assignment.job_id,
        generation=assignment.generation,
        message=(str(error) or "it says no more")[:LONGEST_MESSAGE],
        type=type(error).__name__,
        is_of_job=is_of_job,
        is_of_help=is_of_help,
    )
    link.send(pb.TrainRequest(failure=failure))
