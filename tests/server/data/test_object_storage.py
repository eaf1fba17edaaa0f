"""Rows from object storage: what may be read, and how what can't be read is told."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chainrule.v1 import job_pb2
from chainrule_server.data import object_storage
from chainrule_server.data.data_set import DataError, load
from chainrule_server.data.object_storage import ObjectStorage, allowed_prefixes
from tests.server.gs_server import gs_server
from tests.server.s3_server import ACCESS_KEY, s3_server

CSV = b"a,b,target\n1,2,3\n4,5,6\n"
STORAGE = ObjectStorage(allowed_prefixes(["s3://rows", "s3://mine/below"]))


def parquet(start: int) -> bytes:
    content = io.BytesIO()
    values = np.arange(start, start + 100.0)
    pq.write_table(pa.table({"a": values, "target": 2 * values}), content)
    return content.getvalue()


OBJECTS = {
    "rows/table.csv": CSV,
    "rows/days/1.parquet": parquet(0),
    "rows/days/2.parquet": parquet(100),
    "rows/days/_SUCCESS": b"",
    "rows/broken.parquet": b"PAR1 broken",
    "mine/below/table.csv": CSV,
    "mine/table.csv": CSV,
    "rows-of-others/table.csv": CSV,
}


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectStorage]:
    """What the operator allows of a server with OBJECTS."""
    with s3_server(OBJECTS) as address:
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield ObjectStorage(STORAGE.allowed, tmp_path)


def targets(uri: str, storage: ObjectStorage | None) -> list[float]:
    with load(job_pb2.DataSpec(uri=uri, target="target"), object_storage=storage) as data:
        return [float(value) for value in data.target]


def refused(uri: str, storage: ObjectStorage | None) -> str:
    with pytest.raises(DataError) as caught:
        targets(uri, storage)
    assert caught.value.field == "data.uri"
    return str(caught.value)


def test_an_object_a_folder_and_a_pattern_are_read(storage: ObjectStorage, tmp_path: Path) -> None:
    assert targets("s3://rows/table.csv", storage) == [3, 6]
    assert targets("s3://mine/below/table.csv", storage) == [3, 6]
    both = [2.0 * number for number in range(200)]
    assert targets("s3://rows/days", storage) == both
    assert targets("s3://rows/days/", storage) == both
    assert targets("s3://rows/days/2*.parquet", storage) == both[100:]
    # The copies have no name, so they go by themselves.
    assert list(tmp_path.iterdir()) == []


def test_google_storage_is_read_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with gs_server(OBJECTS) as address:
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
        storage = ObjectStorage(("gs://rows/",), tmp_path)
        assert targets("gs://rows/table.csv", storage) == [3, 6]
        assert targets("gs://rows/days/2*.parquet", storage) == [2.0 * number for number in range(100, 200)]
        assert "there is no such object" in refused("gs://rows/nothing.csv", storage)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "uri",
    ["s3://rows-of-others/table.csv", "s3://mine/table.csv", "gs://rows/table.csv", "s3://rows/../mine/table.csv"],
)
def test_nothing_is_read_that_the_operator_has_not_allowed(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_: str) -> Any:
        raise AssertionError("the storage was asked")

    monkeypatch.setattr(object_storage, "_file_system", asked)
    assert ("may not read there" in refused(uri, STORAGE)) == (".." not in uri)
    assert "it reads no object storage" in refused("s3://rows/table.csv", None)
    for wrong in ("s3:", "s3://", "s3://rows//table.csv", "s3:rows/table.csv"):
        assert "names no object; write 's3://BUCKET/KEY'" in refused(wrong, STORAGE)


def test_what_is_not_there_or_broken_is_told(storage: ObjectStorage) -> None:
    assert "there is no such object" in refused("s3://rows/none.csv", storage)
    assert "means no file" in refused("s3://rows/days/9*.parquet", storage)
    assert "can't be read" in refused("s3://rows/broken.parquet", storage)


def test_without_credentials_it_is_told_where_they_come_from(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in refused("s3://rows/table.csv", storage)


def test_a_storage_that_does_not_answer_ends_with_an_error(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(object_storage, "REQUEST_TIMEOUT_S", 0.2)
    monkeypatch.setattr(object_storage, "ATTEMPTS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "can't be read" in refused("s3://rows/table.csv", storage)


def test_a_google_storage_that_is_silent_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(object_storage, "ANSWER_TIMEOUT_S", 0.5)
        message = refused("gs://rows/a.parquet", ObjectStorage(("gs://rows/",)))
    assert "gave no answer within 0.5 s" in message


def test_a_full_disk_is_told(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    # No buffer: the first write meets the full disk.
    full = Path("/dev/full").open("w+b", buffering=0)  # noqa: SIM115 - closed by whoever copies
    monkeypatch.setattr(object_storage.tempfile, "TemporaryFile", lambda **_: full)
    assert "does not fit on the server's disk" in refused("s3://rows/table.csv", storage)
    assert full.closed


@pytest.mark.parametrize("prefix", ["rows", "s3://", "s3:///", "http://rows/", ""])
def test_a_prefix_that_is_none_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="must be s3://BUCKET/ or gs://BUCKET/"):
        allowed_prefixes([prefix])
