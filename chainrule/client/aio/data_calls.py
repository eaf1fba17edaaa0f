"""The calls of DataService: upload a file, list data sets, delete one. `Client` has them as methods.

An upload is known by the file's hash, so nothing has to be remembered to go on with one that was interrupted.
"""

from __future__ import annotations

from pathlib import Path

from chainrule.client.aio.calls import Calls, sent, sleep, wait_for
from chainrule.client.patience import RECONNECT_TIMEOUT_S, Patience
from chainrule.client.upload_file import CALL_TIMEOUT_S, FINISH_TIMEOUT_S, Told, UploadFile
from chainrule.errors import ServerUnavailable
from chainrule.v1 import data_service_pb2 as api
from chainrule.v1 import data_service_pb2_grpc


class DataCalls(Calls):
    """Every method raises ServerError, of the subclass that fits."""

    async def upload(
        self,
        path: str | Path,
        *,
        name: str = "",
        told: Told | None = None,
        reconnect_timeout_s: float = RECONNECT_TIMEOUT_S,
    ) -> api.DataSet:
        """Send a file to the server, but for what it has already; the data set, for `data.uri = "dataset:NAME"`.

        name: the file's own where it is empty. told: is called with the advance, maybe in another thread. When the
        connection is lost it is made again, for at most reconnect_timeout_s in a row; called again after an
        interruption, it goes on from there.
        Raises DataFileError where the file can't be read, InvalidJob where the server takes no such file."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        patience = Patience(reconnect_timeout_s)
        with await wait_for(UploadFile, Path(path), told) as file:
            begin = await wait_for(file.begin, name)
            while True:
                try:
                    begun: api.BeginUploadResponse = await self._ask(stub.BeginUpload, begin)
                    received = begun.received_bytes
                    while received < file.size_bytes:
                        parts = sent(file.parts(begin.sha256, received))
                        try:
                            answer: api.AppendUploadResponse = await self._ask(stub.AppendUpload, parts, CALL_TIMEOUT_S)
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
                await sleep(pause_s)

    async def get_data_set(self, data_set: str) -> api.DataSet:
        """The data set with this name, SHA-256, or beginning of one (at least 8 digits). Raises JobNotFound."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        request = api.GetDataSetRequest(data_set=data_set)
        response: api.GetDataSetResponse = await self._ask(stub.GetDataSet, request)
        return response.data_set

    async def list_data_sets(self, *, name_prefix: str = "") -> list[api.DataSet]:
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

    async def delete_data_set(self, data_set: str) -> str:
        """Delete a data set with all of its names; its SHA-256.

        Raises JobNotFound, and PreconditionFailed while a job that has not ended needs it."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        request = api.DeleteDataSetRequest(data_set=data_set)
        response: api.DeleteDataSetResponse = await self._ask(stub.DeleteDataSet, request)
        return response.sha256
