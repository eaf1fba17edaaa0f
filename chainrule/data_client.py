"""The calls of DataService: upload a file, list data sets, delete one. `chainrule.client.Client` has them as methods.

An upload is known by the file's hash, so nothing has to be remembered to go on with one that was interrupted.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import grpc

from chainrule.errors import DataFileError, ServerUnavailable
from chainrule.v1 import data_service_pb2 as api
from chainrule.v1 import data_service_pb2_grpc

PART_BYTES = 1 << 20
# What is in a call is acknowledged, and on the server's disk, when it is answered.
CALL_BYTES = 64 << 20
CALL_TIMEOUT_S = 600.0
# The server reads the whole file again and hashes it: a slow disk takes 10 s for 1 GB.
FINISH_TIMEOUT_S = 6 * 3600.0
# How long a server may be away, such as for a restart, while a file is uploaded.
RECONNECT_TIMEOUT_S = 60.0
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 2.0
# Called with what is done ("hashing", "uploading", "checking"), how many bytes of it, and of how many.
Told = Callable[[str, int, int], None]


class _Calls(Protocol):
    """What a client gives to its calls."""

    _channel: grpc.Channel
    _timeout_s: float

    def _errors(self, timeout_s: float) -> AbstractContextManager[None]: ...


class DataCalls:
    """Every method raises ServerError, of the subclass that fits."""

    def upload(
        self: _Calls,
        path: str | Path,
        *,
        name: str = "",
        told: Told | None = None,
        reconnect_timeout_s: float = RECONNECT_TIMEOUT_S,
    ) -> api.DataSet:
        """Send a file to the server, but for what it has already; the data set, for `data.uri = "dataset:NAME"`.

        name: the file's own where it is empty. told: is called with the advance. When the connection is lost it is made
        again, for at most reconnect_timeout_s in a row; called again after an interruption, it goes on from there.
        Raises DataFileError where the file can't be read, InvalidJob where the server takes no such file."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        with _LocalFile(Path(path), told) as file:
            begin = api.BeginUploadRequest(
                sha256=file.hashed(), size_bytes=file.size_bytes, name=name or file.path.name
            )
            lost_at_s: float | None = None
            backoff_s = FIRST_BACKOFF_S
            while True:
                try:
                    with self._errors(self._timeout_s):
                        begun: api.BeginUploadResponse = stub.BeginUpload(begin, timeout=self._timeout_s)
                    received = begun.received_bytes
                    while received < file.size_bytes:
                        try:
                            with self._errors(CALL_TIMEOUT_S):
                                answer = stub.AppendUpload(file.parts(begin.sha256, received), timeout=CALL_TIMEOUT_S)
                        finally:
                            # gRPC would only say that the parts ended.
                            file.check()
                        received = answer.received_bytes
                        lost_at_s, backoff_s = None, FIRST_BACKOFF_S
                    file.tell("checking", file.size_bytes)
                    with self._errors(FINISH_TIMEOUT_S):
                        finish = api.FinishUploadRequest(sha256=begin.sha256, name=begin.name)
                        finished: api.FinishUploadResponse = stub.FinishUpload(finish, timeout=FINISH_TIMEOUT_S)
                    return finished.data_set
                except ServerUnavailable:
                    now_s = time.monotonic()
                    lost_at_s = now_s if lost_at_s is None else lost_at_s
                    if now_s + backoff_s >= lost_at_s + reconnect_timeout_s:
                        raise
                time.sleep(backoff_s * (0.5 + random.random()))  # noqa: S311 - so that clients don't come all at once
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def get_data_set(self: _Calls, data_set: str) -> api.DataSet:
        """The data set with this name, SHA-256, or beginning of one (at least 8 digits). Raises JobNotFound."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        with self._errors(self._timeout_s):
            request = api.GetDataSetRequest(data_set=data_set)
            response: api.GetDataSetResponse = stub.GetDataSet(request, timeout=self._timeout_s)
        return response.data_set

    def list_data_sets(self: _Calls, *, name_prefix: str = "") -> list[api.DataSet]:
        """The data sets with a name that begins so, the latest first, from all pages."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        request = api.ListDataSetsRequest(name_prefix=name_prefix)
        data_sets: list[api.DataSet] = []
        with self._errors(self._timeout_s):
            while True:
                response: api.ListDataSetsResponse = stub.ListDataSets(request, timeout=self._timeout_s)
                data_sets += response.data_sets
                if not response.next_page_token:
                    return data_sets
                request.page_token = response.next_page_token

    def delete_data_set(self: _Calls, data_set: str) -> str:
        """Delete a data set with all of its names; its SHA-256.

        Raises JobNotFound, and PreconditionFailed while a job that has not ended needs it."""
        stub = data_service_pb2_grpc.DataServiceStub(self._channel)
        with self._errors(self._timeout_s):
            request = api.DeleteDataSetRequest(data_set=data_set)
            response: api.DeleteDataSetResponse = stub.DeleteDataSet(request, timeout=self._timeout_s)
        return response.sha256


class _LocalFile:
    """A file to upload, open until the end of a `with`. Raises DataFileError where it can't be read."""

    def __init__(self, path: Path, told: Told | None) -> None:
        self.path = path
        self.size_bytes = 0
        self._told = told
        self._problem: DataFileError | None = None
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise DataFileError(f"{path} can't be read: {error.strerror}") from None

    def __enter__(self) -> _LocalFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tell(self, what: str, done_bytes: int) -> None:
        """Let the caller know of the advance."""
        if self._told is not None:
            self._told(what, done_bytes, self.size_bytes)

    def hashed(self) -> str:
        """The SHA-256, and then `size_bytes` is known. Raises DataFileError, also where there is nothing."""
        if not self.path.is_file():
            raise DataFileError(f"{self.path} is no file; it is read twice, so name one on a disk")
        digest = hashlib.sha256()
        self.size_bytes = self.path.stat().st_size
        hashed = 0
        while content := self._read():
            digest.update(content)
            hashed += len(content)
            self.tell("hashing", hashed)
        self.check()
        if not hashed:
            raise DataFileError(f"{self.path} is empty; there is nothing to upload")
        self.size_bytes = hashed
        return digest.hexdigest()

    def parts(self, sha256: str, start: int) -> Iterator[api.AppendUploadRequest]:
        """The parts of the next call. gRPC asks for them in a thread of its own: `check` tells what went wrong."""
        self._file.seek(start)
        for offset in range(start, min(start + CALL_BYTES, self.size_bytes), PART_BYTES):
            content = self._read()[: self.size_bytes - offset]
            if not content:
                self._problem = self._problem or DataFileError(f"{self.path} became shorter while it was uploaded")
                return
            yield api.AppendUploadRequest(sha256=sha256, offset=offset, content=content)
            self.tell("uploading", offset + len(content))

    def check(self) -> None:
        """Raise DataFileError where the file couldn't be read to its end."""
        if self._problem is not None:
            raise self._problem

    def _read(self) -> bytes:
        try:
            return self._file.read(PART_BYTES)
        except OSError as error:
            self._problem = DataFileError(f"{self.path} can't be read: {error.strerror}")
            return b""
