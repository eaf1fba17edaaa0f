"""The file that a job starts from: found, read whole, checked by its hash, and what it says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from chainrule.v1 import job_pb2
from chainrule_server.data.data_root import DataFileError, open_below
from chainrule_server.data.data_set_store import SCHEME, DataSetStore
from chainrule_server.errors import NotFound

MAX_FILE_BYTES = 4 << 30
# A safetensors file begins with the size of its header in so many bytes.
SIZE_BYTES = 8


class StartError(ValueError):
    """A start that can't be made. field: the path in the job's spec that is wrong."""

    def __init__(self, message: str, *, field: str = "model.start") -> None:
        self.field = field
        super().__init__(message)


@dataclass(frozen=True)
class StartFile:
    """content: all of the file. field: the path in the job's spec that named it."""

    content: bytes
    field: str

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The texts in the file's header; none where it has no header that can be read."""
        size_bytes = int.from_bytes(self.content[:SIZE_BYTES], "little")
        try:
            header = json.loads(self.content[SIZE_BYTES : SIZE_BYTES + size_bytes])
        except (ValueError, RecursionError):
            # Whoever reads its tensors will say that it is none.
            return {}
        found = header.get("__metadata__") if isinstance(header, dict) else None
        return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def read_start_file(
    spec: job_pb2.ModelStart, *, data_root: Path | None, data_sets: DataSetStore | None, path: Path | None
) -> StartFile:
    """The file that a spec names; its `sha256` is filled in.

    path: the file, where it is known already; else it is looked up below data_root or among data_sets. Raises
    StartError."""
    field = f"model.start.{spec.WhichOneof('source')}"
    content = _content(spec, field, data_root=data_root, data_sets=data_sets, path=path)
    digest = hashlib.sha256(content).hexdigest()
    if spec.sha256 and spec.sha256 != digest:
        raise StartError(f"the file has the SHA-256 {digest}, not this one", field="model.start.sha256")
    spec.sha256 = digest
    return StartFile(content, field)


def _content(
    spec: job_pb2.ModelStart, field: str, *, data_root: Path | None, data_sets: DataSetStore | None, path: Path | None
) -> bytes:
    if path is not None:
        try:
            with path.open("rb") as file:
                return _read(file, field)
        except OSError as error:
            raise StartError(f"its file can't be read: {error.strerror}", field=field) from None
    match spec.WhichOneof("source"):
        case "model":
            try:
                with _open(spec.model, data_root, data_sets) as file:
                    return _read(file, field)
            except (DataFileError, NotFound) as error:
                raise StartError(str(error), field=field) from None
        case "job":
            message = "there is no server here whose job it is; 'chainrule download' its model, and name the file"
            raise StartError(f"{message} (model.start.model)", field=field)
    raise StartError("needs a job or a model; name the one to start from")


def _open(name: str, data_root: Path | None, data_sets: DataSetStore | None) -> BinaryIO:
    """Raises DataFileError, NotFound."""
    if not name.startswith(SCHEME):
        return open_below(data_root, name)
    if data_sets is None:
        raise DataFileError("uploaded files are on a server, and this is none; name a file beside the job file")
    return data_sets.open(data_sets.find(name.removeprefix(SCHEME)).sha256)


def _read(file: BinaryIO, field: str) -> bytes:
    content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise StartError(f"is larger than {MAX_FILE_BYTES} bytes, the most that a job can start from", field=field)
    return content
