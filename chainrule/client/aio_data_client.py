"""The calls of DataService as coroutines, with the requests, errors and patience of `chainrule.client.data_client`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import grpc.aio
from google.protobuf.message import Message

from chainrule.client.upload_file import (
    CALL_TIMEOUT_S,
    FINISH_TIMEOUT_S,
    RECONNECT_TIMEOUT_S,
    Patience,
    Told,
    UploadFile,
)
from chainrule.errors import ServerUnavailable
from chainrule.v1 import data_service_pb2 as api
from chainrule.v1 import data_service_pb2_grpc


class _Calls(Protocol):
    """What a client gives to its calls."""

    _channel: grpc.aio.Channel

    async def _ask(self, method: Callable[..., Any], request: Message, timeout_s: float | None = None) -> Any: ...

    def _errors(self, timeout_s: float) -> AbstractAsyncContextManager[None]: ...


class AioDataCalls:
    """Every method raises ServerError, of the subclass that fits."""

    async def upload(
        self: _Calls,
        path: str | Path,
        *,
        name: str = "",
        told: Told | None = None,
        reconnect_timeout_s: float = RECONNECT_TIMEOUT_S,
    ) -> api.DataSet:
        """Send a file to the server: as `Client.upload`. The file is read in threads; `told` may be called in them."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        patience = Patience(reconnect_timeout_s)
        with await asyncio.to_thread(UploadFile, Path(path), told) as file:
            begin = await asyncio.to_thread(file.begin, name)
            while True:
                try:
                    begun: api.BeginUploadResponse = await self._ask(stub.BeginUpload, begin)
                    received = begun.received_bytes
                    while received < file.size_bytes:
                        parts = _parts(file, begin.sha256, received)
                        try:
                            async with self._errors(CALL_TIMEOUT_S):
                                answer = await stub.AppendUpload(parts, timeout=CALL_TIMEOUT_S)
                        finally:
                            # gRPC would only say that the parts ended.
                            file.check()
                        received = answer.received_bytes
                        patience.renew()
                    file.tell("checking", file.size_bytes)
                    finish = api.FinishUploadRequest(sha256=begin.sha256, name=begin.name)
                    finished: api.FinishUploadResponse = await self._ask(stub.FinishUpload, finish, FINISH_TIMEOUT_S)
                    return finished.data_set
                except ServerUnavailable as error:
                    pause_s = patience.pause_s(error)
                await asyncio.sleep(pause_s)

    async def get_data_set(self: _Calls, data_set: str) -> api.DataSet:
        """The data set with this name, SHA-256, or beginning of one (at least 8 digits). Raises JobNotFound."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        request = api.GetDataSetRequest(data_set=data_set)
        response: api.GetDataSetResponse = await self._ask(stub.GetDataSet, request)
        return response.data_set

    async def list_data_sets(self: _Calls, *, name_prefix: str = "") -> list[api.DataSet]:
        """The data sets with a name that begins so, the latest first, from all pages."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        request = api.ListDataSetsRequest(name_prefix=name_prefix)
        data_sets: list[api.DataSet] = []
        while True:
            response: api.ListDataSetsResponse = await self._ask(stub.ListDataSets, request)
            data_sets += response.data_sets
            if not response.next_page_token:
                return data_sets
            request.page_token = response.next_page_token

    async def delete_data_set(self: _Calls, data_set: str) -> str:
        """Delete a data set with all of its names; its SHA-256. Raises JobNotFound, PreconditionFailed."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        request = api.DeleteDataSetRequest(data_set=data_set)
        response: api.DeleteDataSetResponse = await self._ask(stub.DeleteDataSet, request)
        return response.sha256


async def _parts(file: UploadFile, sha256: str, start: int) -> AsyncIterator[api.AppendUploadRequest]:
    """The parts of a call, each read in a thread."""
    parts = file.parts(sha256, start)
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        yield part
