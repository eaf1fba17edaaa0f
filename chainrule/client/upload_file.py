"""What an upload needs on a client's side, whatever sends it: the file in parts, and the deadlines of its calls."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from chainrule.errors import DataFileError
from chainrule.v1 import data_service_pb2 as api

PART_BYTES = 1 << 20
# What is in a call is acknowledged, and on the server's disk, when it is answered.
CALL_BYTES = 64 << 20
CALL_TIMEOUT_S = 600.0
# The server reads the whole file again and hashes it: a slow disk takes 10 s for 1 GB.
FINISH_TIMEOUT_S = 6 * 3600.0
# Called with what is done ("hashing", "uploading", "checking"), how many bytes of it, and of how many.
Told = Callable[[str, int, int], None]


class UploadFile:
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

    def __enter__(self) -> UploadFile:
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

    def begin(self, name: str) -> api.BeginUploadRequest:
        """The first request. name: the file's own where it is empty. Raises DataFileError."""
        sha256 = self.hashed()
        return api.BeginUploadRequest(sha256=sha256, size_bytes=self.size_bytes, name=name or self.path.name)

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
