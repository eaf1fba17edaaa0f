"""The data sets that were uploaded: each a folder HOME/datasets/SHA256 with the file and its manifest.

A folder gets there by one renaming, with everything in it synced, and goes by one. What a file holds is checked by its
hash whenever it is read. It knows nothing of jobs, but that somebody is about to use a data set.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from chainrule.atomic_file import sync_folder
from chainrule.process.logs import log_event
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.data_set_record import CONTENT, FEWEST_DIGITS, DataSetRecord, GivenName, ending_of
from chainrule_server.errors import InvalidRequest, NotFound, StorageFull, WrongState

log = logging.getLogger(__name__)
SCHEME = "dataset:"
# What is on its way out, or unreadable, has a name that is no hash.
GONE = ".gone"
DAMAGED = ".damaged"


class DataSetStore:
    """The data sets below `folder`. It may be used from any thread. Raises OSError where the folder can't be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._records: dict[str, DataSetRecord] = {}
        # By SHA-256: how many jobs are just being created from a data set.
        self._held: Counter[str] = Counter()
        folder.mkdir(parents=True, exist_ok=True)
        for each in sorted(folder.iterdir()):
            self._take_up(each)
        self._last_order = max((record.last_order for record in self._records.values()), default=0)

    @property
    def size_bytes(self) -> int:
        """The bytes of all data sets."""
        with self._lock:
            return sum(record.size_bytes for record in self._records.values())

    def all(self) -> list[DataSetRecord]:
        """Every data set, in no order."""
        with self._lock:
            return list(self._records.values())

    def get(self, sha256: str) -> DataSetRecord | None:
        """The data set of these bytes, if it is there."""
        with self._lock:
            return self._records.get(sha256)

    def find(self, reference: str) -> DataSetRecord:
        """The data set with this name, SHA-256 or beginning of one. Raises NotFound."""
        with self._lock:
            return self._find(reference)

    def add(self, folder: Path, record: DataSetRecord) -> None:
        """Take over the folder of a complete upload, whose content was checked and synced. Raises StorageFull."""
        with self._lock:
            record = record.numbered(self._next_order())
            try:
                record.write(folder)
                folder.rename(self._folder / record.sha256)
                sync_folder(self._folder)
                sync_folder(folder.parent)
            except OSError as error:
                raise StorageFull(f"the data set can't be stored: {error.strerror}; finish the upload again") from error
            self._records[record.sha256] = record
        extra = log_event("data_set_stored", data_set=record.sha256, size_bytes=record.size_bytes)
        log.info("data set %s (%s, %d bytes) is there", record.sha256[:12], record.name, record.size_bytes, extra=extra)

    def give_name(self, sha256: str, name: str, *, now_s: float) -> DataSetRecord:
        """The data set with one more name. Raises NotFound, StorageFull, InvalidRequest for another ending."""
        with self._lock:
            record = self._find(sha256)
            if record.given(name) is not None and self._find(name) is record:
                return record
            if ending_of(name) != ending_of(record.name):
                message = f"these bytes are there as {record.name!r}, so the name must end in {ending_of(record.name)}"
                raise InvalidRequest([("name", message)])
            named = record.with_name(GivenName(name, now_s, self._next_order()))
            try:
                named.write(self._folder / sha256)
            except OSError as error:
                raise StorageFull(f"the name can't be stored, and wasn't: {error.strerror}") from error
            self._records[sha256] = named
            return named

    def remove(self, sha256: str) -> None:
        """Delete a data set. Raises NotFound, WrongState while a job is created from it, StorageFull."""
        with self._lock:
            self._find(sha256)
            if self._held[sha256]:
                raise WrongState(f"a job is being created from data set {sha256[:12]}; try again")
            path = self._folder / sha256
            gone = path.with_suffix(GONE)
            try:
                path.rename(gone)
                sync_folder(self._folder)
            except OSError as error:
                raise StorageFull(f"the data set can't be deleted, and wasn't: {error.strerror}") from error
            del self._records[sha256]
        log.info("data set %s is deleted", sha256[:12], extra=log_event("data_set_deleted", data_set=sha256))
        # Whoever reads it has it open.
        shutil.rmtree(gone, ignore_errors=True)

    @contextmanager
    def held(self, uri: str) -> Iterator[str]:
        """`with` keeps the data set of a URI from being deleted, and gives the URI with its SHA-256 in place of a name.

        Any other URI, and one of a data set that isn't there, comes as it is."""
        sha256 = ""
        if uri.startswith(SCHEME):
            with self._lock, suppress(NotFound):  # whoever reads it will say so
                sha256 = self._find(uri.removeprefix(SCHEME)).sha256
                self._held[sha256] += 1
        try:
            yield SCHEME + sha256 if sha256 else uri
        finally:
            if sha256:
                with self._lock:
                    self._held[sha256] -= 1

    def open(self, sha256: str) -> BinaryIO:
        """The file, opened for reading, its hash checked. Raises DataFileError."""
        try:
            file = (self._folder / sha256 / CONTENT).open("rb")
        except OSError as error:
            raise DataFileError(f"can't be read on the server's disk: {error.strerror}; upload it again") from None
        try:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise DataFileError(
                    "is damaged on the server's disk: its bytes have another hash; delete it and upload it again"
                )
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def _find(self, reference: str) -> DataSetRecord:
        found = self._records.get(reference)
        if found is not None:
            return found
        named = [
            (given.key, record) for record in self._records.values() if (given := record.given(reference)) is not None
        ]
        if named:
            return max(named, key=lambda each: each[0])[1]
        if re.fullmatch(rf"[0-9a-f]{{{FEWEST_DIGITS},64}}", reference):
            begin = [record for sha256, record in self._records.items() if sha256.startswith(reference)]
            if len(begin) == 1:
                return begin[0]
        raise NotFound(f"there is no data set {reference[:80]!r}; 'chainrule datasets list' shows all")

    def _next_order(self) -> int:
        self._last_order += 1
        return self._last_order

    def _take_up(self, path: Path) -> None:
        """Know a folder that is there, or clear away what a server that was killed left of it."""
        if path.name.endswith(GONE):
            shutil.rmtree(path, ignore_errors=True)
            return
        if path.suffix == DAMAGED:
            return
        try:
            record = DataSetRecord.read(path)
            if (path / CONTENT).stat().st_size != record.size_bytes:
                raise ValueError(f"{path / CONTENT} has not {record.size_bytes} bytes")
        except (OSError, ValueError) as error:
            extra = log_event("data_set_damaged", data_set=path.name)
            log.warning("data set %s is damaged and set aside: %s", path.name, error, extra=extra)
            aside = path.with_suffix(DAMAGED)
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            return
        self._records[record.sha256] = record
