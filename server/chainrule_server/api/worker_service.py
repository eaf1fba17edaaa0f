"""The RPC methods that workers call: decode, one call on a plain object, encode."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from chainrule.holding.errors import ProtocolError
from chainrule.holding.link_offers import LinkOffers
from chainrule.transport.wire_codec import OutgoingResponse, RawPart, Request
from chainrule.v1 import worker_service_pb2 as pb
from chainrule.v1 import worker_service_pb2_grpc
from chainrule_server.api.connected_worker import HELLO_TIMEOUT_S, ConnectedWorker
from chainrule_server.api.job_service import PART_BYTES
from chainrule_server.errors import PermissionDenied
from chainrule_server.grpc_status import peer, streaming
from chainrule_server.jobs.worker_sharing import WorkerSharing

SESSION_BYTES = 16


@dataclass
class WorkerService(worker_service_pb2_grpc.WorkerServiceServicer):
    """What workers call. link_offers: None where memory is never shared."""

    sharing: WorkerSharing
    link_offers: LinkOffers | None = None
    # The name of each connected worker by its session.
    _sessions: dict[bytes, str] = field(default_factory=dict)

    @streaming
    async def Train(self, requests: AsyncIterator[Request]) -> AsyncIterator[OutgoingResponse]:  # noqa: N802
        try:
            first = await asyncio.wait_for(anext(requests), HELLO_TIMEOUT_S)
        except (TimeoutError, StopAsyncIteration):
            raise ProtocolError(f"a worker says hello within {HELLO_TIMEOUT_S:g} s") from None
        if isinstance(first, RawPart) or not first.HasField("hello"):
            raise ProtocolError("a worker's stream begins with hello")
        worker = self.sharing.pool.register(first.hello, address=peer.get())
        name, lease_s = worker.name, worker.lease.lease_s
        connected = ConnectedWorker(self.sharing, name, worker.lease)
        session = secrets.token_bytes(SESSION_BYTES)
        self._sessions[session] = name
        try:
            welcome = pb.Welcome(name=name, lease_s=lease_s, alive_interval_s=min(1.0, lease_s / 5), session=session)
            if self.link_offers is not None and first.hello.wants_local_link:
                offer, connected.local = self.link_offers.offer()
                welcome.local_link.CopyFrom(offer)
            yield pb.TrainResponse(welcome=welcome)
            connected.start(requests)
            while (response := await connected.stream.outgoing.get()) is not None:
                yield response
            connected.raise_failure()
        finally:
            del self._sessions[session]
            connected.close()

    @streaming
    async def ReadShard(self, request: pb.ReadShardRequest) -> AsyncIterator[pb.ReadShardResponse]:  # noqa: N802
        worker = self._sessions.get(request.session)
        if worker is None:
            raise PermissionDenied("ReadShard is for workers: the session isn't that of a Train stream that is open")
        job = self.sharing.shard_source(request.job_id, request.shard, worker=worker)
        rows = job.shard(request.shard, validation=request.validation)
        rows_in_part = max(1, PART_BYTES // max(1, 4 * rows.features.shape[1]))
        for start in range(0, len(rows.targets), rows_in_part):
            part = slice(start, start + rows_in_part)
            targets = rows.targets[part]
            yield pb.ReadShardResponse(
                row_count=len(targets),
                features=rows.features[part].astype("<f4", copy=False).tobytes(),
                targets=targets.astype(targets.dtype.newbyteorder("<"), copy=False).tobytes(),
                row_numbers=rows.numbers[part].astype("<i8", copy=False).tobytes(),
            )
