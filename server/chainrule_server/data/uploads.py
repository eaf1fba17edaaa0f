"""Uploads that are not complete: each a folder HOME/uploads/SHA256 with the bytes so far and the manifest.

How far an upload is, is how long its file is: nothing else has to be kept, so it survives kill -9 as it stands. Once
complete and of the right hash the folder becomes a data set. Everything here blocks; it may be used from any thread.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chainrule.process.logs import log_event
from chainrule_server.data.data_set_record import (
    CONTENT,
    DataSetRecord,
    GivenName,
    ending_of,
    name_problem,
    sha256_problem,
)
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.errors import InvalidRequest, LimitExceeded, NotFound, OutOfRange, StorageFull, WrongState
from chainrule_server.limits import Limits

log = logging.getLogger(__name__)
PART_BYTES = 1 << 20
# Each is a folder, and holds back its bytes of what the server may keep.
MAX_UPLOADS = 1000
ABANDONED_AFTER_S = 24 * 3600.0


@dataclass
class _Upload:
    record: DataSetRecord
    folder: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_finishing: bool = False
    is_gone: bool = False
    # When it last got bytes, by a monotonic clock.
    fed_at_s: float = 0.0

    @property
    def content(self) -> Path:
        return self.folder / CONTENT

    def received_bytes(self) -> int:
        """How far it is. Raises OSError."""
        return self.content.stat().st_size


class Uploads:
    """The uploads below `folder`, which become data sets of `data_sets`.

    max_bytes: of all data sets and uploads together. clock: Unix seconds, told to people alone. monotonic_s: decides
    what is abandoned; a server that was started again counts anew. Raises OSError."""

    def __init__(
        self,
        folder: Path,
        data_sets: DataSetStore,
        *,
        max_bytes: int = Limits.max_data_set_bytes,
        abandoned_after_s: float = ABANDONED_AFTER_S,
        clock: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.data_sets = data_sets
        self._folder = folder
        self._max_bytes = max_bytes
        self._abandoned_after_s = abandoned_after_s
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._uploads: dict[str, _Upload] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for each in sorted(folder.iterdir()):
            try:
                self._uploads[each.name] = _Upload(DataSetRecord.read(each), each, fed_at_s=monotonic_s())
                (each / CONTENT).touch()
            except (OSError, ValueError):
                # Its beginning was never answered.
                shutil.rmtree(each, ignore_errors=True)

    def begin(self, *, sha256: str, size_bytes: int, name: str) -> tuple[int, DataSetRecord | None]:
        """How many bytes are there, and the data set where it is complete.

        Raises InvalidRequest, LimitExceeded, StorageFull."""
        self._check(sha256=sha256, name=name, size_bytes=size_bytes)
        with self._lock:
            found = self.data_sets.get(sha256)
            if found is not None:
                self._check_same(found, size_bytes=size_bytes, name=name)
                return found.size_bytes, found
            upload = self._uploads.get(sha256)
            try:
                if upload is None:
                    upload = self._new(self._begun(sha256, size_bytes, name))
                self._check_same(upload.record, size_bytes=size_bytes, name=name)
                return upload.received_bytes(), None
            except OSError as error:
                raise _storage_full(error) from error

    def append(self, sha256: str, offset: int, content: bytes) -> int:
        """Add a part; how many bytes are there now. Raises NotFound, OutOfRange, InvalidRequest, StorageFull."""
        if len(content) > PART_BYTES:
            raise InvalidRequest([("content", f"must be at most {PART_BYTES} bytes, got {len(content)}")])
        upload = self._find(sha256)
        with upload.lock:
            self._check_open(upload)
            try:
                received = upload.received_bytes()
                if offset > received:
                    raise OutOfRange(f"the server has {received} bytes; go on from there and not from {offset}")
                if offset + len(content) > upload.record.size_bytes:
                    raise OutOfRange(f"the upload was begun with {upload.record.size_bytes} bytes; here are more")
                upload.fed_at_s = self._monotonic_s()
                return received + _append(upload.content, content[received - offset :])
            except OSError as error:
                raise _storage_full(error) from error

    def sync(self, sha256: str) -> int:
        """Put what was added on the disk; how many bytes are there. Raises NotFound, StorageFull."""
        upload = self._find(sha256)
        with upload.lock:
            self._check_open(upload)
            try:
                with upload.content.open("rb") as file:
                    os.fsync(file.fileno())
                return upload.received_bytes()
            except OSError as error:
                raise _storage_full(error) from error

    def finish(self, sha256: str, name: str = "") -> DataSetRecord:
        """The data set that a complete upload becomes. It reads all of it.

        Raises NotFound, WrongState while bytes are missing, InvalidRequest for a wrong hash or name, StorageFull."""
        self._check(sha256=sha256, name=name or None)
        known = self.data_sets.get(sha256)
        if known is None:
            upload = self._find(sha256)
            if name and ending_of(name) != ending_of(upload.record.name):
                raise InvalidRequest([("name", f"the upload was begun as {upload.record.name!r}")])
            known = self._finished(upload)
        return self.data_sets.give_name(sha256, name or known.name, now_s=self._clock())

    def cancel(self, sha256: str) -> None:
        """Drop an upload. Raises NotFound, WrongState while it is being finished."""
        upload = self._find(sha256)
        with upload.lock:
            self._check_open(upload)
            self._forget(upload)

    def remove_abandoned(self) -> None:
        """Drop the uploads that got no bytes for a long time."""
        with self._lock:
            uploads = list(self._uploads.values())
        for upload in uploads:
            with upload.lock:
                unfed_s = self._monotonic_s() - upload.fed_at_s
                if unfed_s > self._abandoned_after_s and not upload.is_finishing:
                    log.info(
                        "upload %s (%s) got no bytes for long and is dropped",
                        upload.folder.name[:12],
                        upload.record.name,
                        extra=log_event("upload_dropped", data_set=upload.folder.name),
                    )
                    self._forget(upload)

    def _begun(self, sha256: str, size_bytes: int, name: str) -> DataSetRecord:
        now_s = self._clock()
        return DataSetRecord(sha256, size_bytes, (GivenName(name, now_s),), now_s)

    def _new(self, record: DataSetRecord) -> _Upload:
        reserved = sum(upload.record.size_bytes for upload in self._uploads.values()) + self.data_sets.size_bytes
        if reserved + record.size_bytes > self._max_bytes:
            raise LimitExceeded(
                f"{record.name!r} has {record.size_bytes} bytes; with the {reserved} of all data sets and uploads that "
                f"is more than the {self._max_bytes} which this server keeps; delete a data set, or start the server "
                "with a larger --max-data-set-bytes"
            )
        if len(self._uploads) >= MAX_UPLOADS:
            raise LimitExceeded(f"{MAX_UPLOADS} uploads are under way, which is the most; finish or cancel one")
        free_bytes = shutil.disk_usage(self._folder).free
        if record.size_bytes > free_bytes:
            raise StorageFull(f"the server's disk has {free_bytes} bytes left, and {record.size_bytes} are needed")
        upload = _Upload(record, self._folder / record.sha256, fed_at_s=self._monotonic_s())
        record.write(upload.folder)
        upload.content.touch()
        self._uploads[record.sha256] = upload
        return upload

    def _finished(self, upload: _Upload) -> DataSetRecord:
        with upload.lock:
            self._check_open(upload)
            received, size_bytes = upload.received_bytes(), upload.record.size_bytes
            if received < size_bytes:
                raise WrongState(f"the server has {received} of {size_bytes} bytes; append the rest first")
            upload.is_finishing = True
        try:
            try:
                with upload.content.open("rb") as file:
                    os.fsync(file.fileno())
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise _storage_full(error) from error
            sha256 = upload.record.sha256
            if found != sha256:
                self._forget(upload)
                message = f"the bytes have the SHA-256 {found} and not {sha256}; did the file change? Upload it again"
                raise InvalidRequest([("sha256", message)])
            self.data_sets.add(upload.folder, upload.record)
            self._forget(upload)
            return upload.record
        finally:
            upload.is_finishing = False

    def _forget(self, upload: _Upload) -> None:
        upload.is_gone = True
        with self._lock:
            self._uploads.pop(upload.record.sha256, None)
            # With the lock: nobody may begin again there meanwhile.
            shutil.rmtree(upload.folder, ignore_errors=True)

    def _find(self, sha256: str) -> _Upload:
        with self._lock:
            upload = self._uploads.get(sha256)
        if upload is None:
            raise NotFound(f"there is no upload {sha256[:80]!r}; begin it")
        return upload

    def _check_open(self, upload: _Upload) -> None:
        if upload.is_gone:
            raise NotFound(f"there is no upload {upload.record.sha256} any more; begin it again")
        if upload.is_finishing:
            raise WrongState("the upload is being finished; wait for it")

    def _check(self, *, sha256: str, name: str | None, size_bytes: int = 1) -> None:
        problems = [("sha256", sha256_problem(sha256)), ("name", "" if name is None else name_problem(name))]
        if size_bytes < 1:
            problems.append(("size_bytes", "must be at least 1: an empty file has no rows"))
        if violations := [problem for problem in problems if problem[1]]:
            raise InvalidRequest(violations)

    def _check_same(self, record: DataSetRecord, *, size_bytes: int, name: str) -> None:
        violations = []
        if record.size_bytes != size_bytes:
            violations.append(("size_bytes", f"the file of this hash has {record.size_bytes} bytes, got {size_bytes}"))
        if ending_of(name) != ending_of(record.name):
            violations.append(("name", f"these bytes are known as {record.name!r}; let the name end like that"))
        if violations:
            raise InvalidRequest(violations)


def _append(path: Path, content: bytes) -> int:
    """Write the content at the file's end; how many bytes. Raises OSError, with what fitted written."""
    left = memoryview(content)
    with path.open("ab", buffering=0) as file:
        while left:
            left = left[file.write(left) :]
    return len(content)


def _storage_full(error: OSError) -> StorageFull:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("the server's disk is full; what it has is kept: make room, then go on with the upload")
    return StorageFull(f"the server's disk can't be used: {error.strerror}; what it has of the upload is kept")
