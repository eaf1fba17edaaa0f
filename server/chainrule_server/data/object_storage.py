"""Rows from object storage, s3://BUCKET/KEY and gs://BUCKET/KEY, as far as the operator lets jobs read there.

Arrow's file systems do the reading. Who the server is to them, and where they are, its environment says, by the
variables that everybody uses. An object is copied once to a temporary file without a name: it is read more than once,
and must not change meanwhile.
"""

from __future__ import annotations

import datetime
import errno
import os
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from chainrule_server.data.data_root import DataFileError, is_pattern, matching

# The option's default: a process that is started for one question inherits it.
VARIABLE = "CHAINRULE_ALLOW_OBJECT_STORAGE"
SCHEMES = ("s3", "gs")
CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0
# For an answer, the libraries' own attempts included: some of them wait for a silent server without an end.
ANSWER_TIMEOUT_S = 240.0
ATTEMPTS = 3
COPY_TIMEOUT_S = 3600.0
PART_BYTES = 8 << 20
REFUSALS = ("denied", "credential", "authenticat", "unauthorized", "forbidden", "403")
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's account",
}


@dataclass(frozen=True)
class ObjectStorage:
    """allowed: what jobs may read, each 's3://BUCKET/' or 's3://BUCKET/FOLDER/'. folder: for the temporary files."""

    allowed: tuple[str, ...] = ()
    folder: Path | None = None

    def names(self, uri: str, endings: Collection[str]) -> list[str]:
        """The URIs of the objects that a URI means, in order: an object, a folder, or a pattern in the last part.

        Raises DataFileError, before anything is asked for where it isn't allowed."""
        scheme, path = self._checked(uri)
        with _errors(scheme):
            files = _file_system(scheme)
            folder, _, pattern = path.rstrip("/").rpartition("/")
            kind = _answered(lambda: files.get_file_info(path.rstrip("/"))).type.name
            if kind == "File":
                return [uri]
            if kind == "Directory":
                folder, pattern = path.rstrip("/"), "*"
            elif not is_pattern(pattern):
                raise DataFileError("there is no such object; check the bucket and the key")
            found = matching(_listed(files, folder), pattern, endings)
        return [f"{scheme}://{folder}/{name}" for name in found]

    def open(self, uri: str) -> BinaryIO:
        """A copy of an object. Raises DataFileError."""
        scheme, path = self._checked(uri)
        deadline_s = time.monotonic() + COPY_TIMEOUT_S
        copy = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 - the caller's to close
        try:
            files = _file_system(scheme)
            with _errors(scheme), _answered(lambda: files.open_input_stream(path)) as source:
                while content := _answered(lambda: source.read(PART_BYTES)):
                    copy.write(content)
                    if time.monotonic() > deadline_s:
                        raise DataFileError(f"could not be read within {COPY_TIMEOUT_S:g} s")
                copy.flush()
            copy.seek(0)
        except BaseException:
            copy.close()
            raise
        return copy

    def _checked(self, uri: str) -> tuple[str, str]:
        """(scheme, bucket and key) of a URI that may be read."""
        scheme, _, path = uri.partition("://")
        parts = path.rstrip("/").split("/")
        if scheme not in SCHEMES or not all(parts) or {".", ".."} & set(parts):
            raise DataFileError(f"names no object; write '{uri[:2]}://BUCKET/KEY'")
        if not any(f"{scheme}://{path.rstrip('/')}/".startswith(prefix) for prefix in self.allowed):
            told = f"it reads {', '.join(self.allowed)}" if self.allowed else "it reads no object storage"
            raise DataFileError(
                f"this server may not read there: {told}; its operator can start it with --allow-object-storage "
                f"{scheme}://{parts[0]}/"
            )
        return scheme, path


def default_prefixes() -> list[str]:
    """The prefixes of CHAINRULE_ALLOW_OBJECT_STORAGE, divided by blanks."""
    return os.environ.get(VARIABLE, "").split()


def default_object_storage() -> ObjectStorage:
    """What a process that is started for one question may read. Raises ValueError for a prefix that is none."""
    return ObjectStorage(allowed_prefixes(default_prefixes()))


def allowed_prefixes(prefixes: Iterable[str]) -> tuple[str, ...]:
    """The prefixes, each with '/' at its end. Raises ValueError for one that is none."""
    found = []
    for prefix in prefixes:
        scheme, _, path = prefix.partition("://")
        if scheme not in SCHEMES or not path.strip("/"):
            raise ValueError(f"must be s3://BUCKET/ or gs://BUCKET/, a folder may follow; got {prefix[:80]!r}")
        # With its end: 's3://rows/' must not allow 's3://rows-of-others/'.
        found.append(f"{scheme}://{path.strip('/')}/")
    return tuple(found)


def _file_system(scheme: str) -> Any:
    try:
        from pyarrow import fs
    except ImportError:
        raise DataFileError(
            "object storage is read by pyarrow, which is not installed here; pip install 'chainrule[data]'"
        ) from None
    if scheme == "gs":
        return fs.GcsFileSystem(
            # An emulator, whose address the library takes from this variable, knows no accounts.
            anonymous="CLOUD_STORAGE_EMULATOR_ENDPOINT" in os.environ,
            retry_time_limit=datetime.timedelta(seconds=REQUEST_TIMEOUT_S),
        )
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", ""))
    return fs.S3FileSystem(
        scheme=endpoint.scheme or "https",
        endpoint_override=endpoint.netloc or None,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def _listed(files: Any, folder: str) -> list[str]:
    """The names of the objects right below a folder."""
    from pyarrow import fs

    infos = _answered(lambda: files.get_file_info(fs.FileSelector(folder)))
    return [info.base_name for info in infos if info.type.name == "File"]


def _answered(call: Callable[[], Any]) -> Any:
    """What `call` returns or raises. DataFileError where it takes longer than ANSWER_TIMEOUT_S; its thread is left."""
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            answer.set_exception(error)

    threading.Thread(target=run, name="object-storage", daemon=True).start()
    try:
        return answer.result(ANSWER_TIMEOUT_S)
    except FutureTimeoutError:
        if answer.done():  # it is the call's own
            raise
        raise DataFileError(f"gave no answer within {ANSWER_TIMEOUT_S:g} s; is the object storage there?") from None


@contextmanager
def _errors(scheme: str) -> Iterator[None]:
    """Turn what the file systems raise into DataFileError."""
    try:
        yield
    except DataFileError:
        raise
    except FileNotFoundError:
        raise DataFileError("there is no such object; check the bucket and the key") from None
    # Arrow's own errors are ValueErrors and so on too.
    except (OSError, ValueError, NotImplementedError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise DataFileError("does not fit on the server's disk, where it is copied to first") from None
        text = next(iter(str(error).splitlines()), type(error).__name__)[:300]
        hint = ""
        if any(word in text.lower() for word in REFUSALS):
            hint = f"; the server's environment says who it is: {CREDENTIALS[scheme]}"
        raise DataFileError(f"can't be read: {text}{hint}") from None
