"""The RPC methods of DataService: decode, one call on a plain object in a thread, encode."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from chainrule.v1 import data_service_pb2 as api
from chainrule.v1 import data_service_pb2_grpc
from chainrule_server.api.pages import Key, beginning, digest_of, filled, token
from chainrule_server.data.data_set_record import DataSetRecord
from chainrule_server.data.data_set_store import SCHEME
from chainrule_server.data.uploads import Uploads
from chainrule_server.errors import InvalidRequest, WrongState
from chainrule_server.grpc_status import unary
from chainrule_server.jobs.registry import JobRegistry

# Hashing reads the whole file; more at a time would only share the disk.
MAX_FINISHING = 2
PART_TIMEOUT_S = 60.0


@dataclass
class DataService(data_service_pb2_grpc.DataServiceServicer):
    """Uploads and data sets. jobs: they know which data sets are needed."""

    jobs: JobRegistry
    uploads: Uploads
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_FINISHING))

    @unary
    async def BeginUpload(self, request: api.BeginUploadRequest) -> api.BeginUploadResponse:  # noqa: N802
        received_bytes, record = await asyncio.to_thread(
            self.uploads.begin, sha256=request.sha256, size_bytes=request.size_bytes, name=request.name
        )
        return api.BeginUploadResponse(
            received_bytes=received_bytes, data_set=None if record is None else message_of(record)
        )

    @unary
    async def AppendUpload(  # noqa: N802
        self, requests: AsyncIterator[api.AppendUploadRequest]
    ) -> api.AppendUploadResponse:
        sha256 = ""
        while (request := await _next(requests)) is not None:
            if sha256 and request.sha256 != sha256:
                raise InvalidRequest([("sha256", "must be the same in all messages of a stream")])
            sha256 = request.sha256
            await asyncio.to_thread(self.uploads.append, sha256, request.offset, request.content)
        if not sha256:
            raise InvalidRequest([("", "the stream holds no part; send one or more")])
        return api.AppendUploadResponse(received_bytes=await asyncio.to_thread(self.uploads.sync, sha256))

    @unary
    async def FinishUpload(self, request: api.FinishUploadRequest) -> api.FinishUploadResponse:  # noqa: N802
        async with self._turn:
            record = await asyncio.to_thread(self.uploads.finish, request.sha256, request.name)
        return api.FinishUploadResponse(data_set=message_of(record))

    @unary
    async def CancelUpload(self, request: api.CancelUploadRequest) -> api.CancelUploadResponse:  # noqa: N802
        await asyncio.to_thread(self.uploads.cancel, request.sha256)
        return api.CancelUploadResponse(sha256=request.sha256)

    @unary
    async def GetDataSet(self, request: api.GetDataSetRequest) -> api.GetDataSetResponse:  # noqa: N802
        return api.GetDataSetResponse(data_set=message_of(self.uploads.data_sets.find(request.data_set)))

    @unary
    async def ListDataSets(self, request: api.ListDataSetsRequest) -> api.ListDataSetsResponse:  # noqa: N802
        return page(self.uploads.data_sets.all(), request)

    @unary
    async def DeleteDataSet(self, request: api.DeleteDataSetRequest) -> api.DeleteDataSetResponse:  # noqa: N802
        record = self.uploads.data_sets.find(request.data_set)
        uri = SCHEME + record.sha256
        needing = [job for job in self.jobs.all() if not job.is_final and job.spec.data.uri == uri]
        if needing:
            more = f" and {len(needing) - 1} more" if len(needing) > 1 else ""
            raise WrongState(
                f"job {needing[0].job_id}{more} needs data set {record.name!r} and has not ended; wait for it, or "
                f"cancel it ('chainrule cancel {needing[0].job_id}')"
            )
        await asyncio.to_thread(self.uploads.data_sets.remove, record.sha256)
        return api.DeleteDataSetResponse(sha256=record.sha256)


def message_of(record: DataSetRecord) -> api.DataSet:
    """A data set as clients see it."""
    fraction, seconds = math.modf(record.created_at_s)
    return api.DataSet(
        sha256=record.sha256,
        size_bytes=record.size_bytes,
        names=[each.name for each in record.names],
        create_time=Timestamp(seconds=int(seconds), nanos=int(fraction * 1e9)),
    )


def page(records: list[DataSetRecord], request: api.ListDataSetsRequest) -> api.ListDataSetsResponse:
    """The data sets that the request asks for. Raises InvalidRequest for a wrong size or token."""
    digest = digest_of(request.name_prefix)
    after, violations = beginning(request.page_size, request.page_token, digest)
    if violations:
        raise InvalidRequest(violations)
    fitting = {
        _key(record): record
        for record in records
        if any(each.name.startswith(request.name_prefix) for each in record.names)
    }
    keys = sorted((key for key in fitting if after is None or key < after), reverse=True)
    messages = filled((message_of(fitting[key]) for key in keys), request.page_size)
    response = api.ListDataSetsResponse(data_sets=messages)
    if len(messages) < len(keys):
        response.next_page_token = token(keys[len(messages) - 1], digest)
    return response


def _key(record: DataSetRecord) -> Key:
    """Its place in the list: by its order; those without one by their times, before all others."""
    return record.order, f"{max(0, round(record.created_at_s * 1e6)):020d} {record.sha256}"


async def _next(requests: AsyncIterator[api.AppendUploadRequest]) -> api.AppendUploadRequest | None:
    """The next part; None at the stream's end. Raises WrongState where none comes for long."""
    try:
        return await asyncio.wait_for(anext(requests), PART_TIMEOUT_S)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise WrongState(
            f"no part came for {PART_TIMEOUT_S:g} s; what came is kept: begin the upload again and go on from there"
        ) from None
