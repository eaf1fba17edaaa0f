"""`chainrule datasets …` and `submit --upload` against a server in this process; and the client's upload."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chainrule.cli.app import run
from chainrule.client import upload_file
from chainrule.client.blocking.client import Client
from chainrule.errors import DataFileError, InvalidJob, JobNotFound, ServerError, ServerUnavailable
from chainrule.spec.job_file import parse_job
from chainrule_server.data.uploads import Uploads
from chainrule_server.errors import StorageFull
from chainrule_server.models.model_file import Provenance, encode
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.preparation.prepare import prepare
from tests.server.in_process import RunningServer, running_server

CONTENT = b"a,b,target\n" + b"".join(b"%d,%d,%d\n" % (number, number % 7, 3 * number) for number in range(400))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
JOB = """
name = "table"
[model]
loss = "(w @ x - y)**2"
[model.parameters]
w = ["d"]
[data]
uri = "file:rows.csv"
target = "target"
[training]
epochs = 1
batch_size = 8
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    with running_server(tmp_path / "home") as running:
        monkeypatch.setenv("CHAINRULE_SERVER", running.address)
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_bytes(CONTENT)
    return path


def call(*arguments: str | Path) -> int:
    return run([str(each) for each in arguments])


def test_a_file_is_uploaded_listed_and_deleted(server: RunningServer, file: Path, capsys: Any) -> None:
    assert call("datasets", "list") == 0
    assert capsys.readouterr().out == "there are no data sets\n"
    assert call("datasets", "upload", file) == 0
    assert 'uri = "dataset:rows.csv"' in capsys.readouterr().out
    assert call("datasets", "upload", file, "--name", "other.csv", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sha256"], told["size_bytes"], told["names"]) == (SHA256, len(CONTENT), ["rows.csv", "other.csv"])
    assert call("datasets", "list", "--name", "other", "--json") == 0
    assert [each["sha256"] for each in json.loads(capsys.readouterr().out)["data_sets"]] == [SHA256]
    assert call("datasets", "list") == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["SHA-256", "SIZE", "CREATED", "NAMES"]
    assert line.startswith(SHA256[:12])
    assert line.endswith("other.csv, rows.csv")
    assert call("datasets", "delete", SHA256[:8], "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"sha256": SHA256, "deleted": True}
    assert call("datasets", "delete", "rows.csv") == 2
    assert "there is no data set 'rows.csv'" in capsys.readouterr().err


def test_a_job_is_submitted_with_the_file_beside_it(server: RunningServer, file: Path, capsys: Any) -> None:
    job_file = file.parent / "job.toml"
    job_file.write_text(JOB)
    assert call("submit", job_file) == 2, "the server has no such file"
    capsys.readouterr()
    for _ in range(2):
        assert call("submit", job_file, "--upload", "--json") == 0
        assert json.loads(capsys.readouterr().out)["spec"]["data"]["uri"] == f"dataset:{SHA256}"
    job_file.write_text(JOB.replace("file:rows.csv", "file:none.csv"))
    assert call("submit", job_file, "--upload") == 2
    assert "data.uri: there is no file" in capsys.readouterr().err
    job_file.write_text(JOB.replace("file:rows.csv", "sklearn:iris"))
    assert call("submit", job_file, "--upload") == 2
    assert "--upload needs 'file:NAME'" in capsys.readouterr().err


def test_a_model_to_start_from_goes_along_and_its_preprocessing_is_the_jobs(
    server: RunningServer, file: Path, capsys: Any
) -> None:
    job_file = file.parent / "job.toml"
    prepared = prepare(parse_job(JOB, source="the test"), data_root=file.parent)
    trained = TrainedModel.of(prepared, prepared.first_state())
    (file.parent / "old.safetensors").write_bytes(encode(trained, Provenance("f00d", "", 0.0)))
    job_file.write_text(JOB + '[model.start]\nmodel = "old.safetensors"\n')
    assert call("submit", job_file, "--upload", "--json") == 0
    model = json.loads(capsys.readouterr().out)["spec"]["model"]
    assert model["start"]["model"] == f"dataset:{model['start']['sha256']}"
    assert model["start"]["preprocessing"] == {"features": True, "target": True}
    assert call("datasets", "upload", file.parent / "old.safetensors") == 0
    assert 'model.start.model = "dataset:old.safetensors"' in capsys.readouterr().out
    job_file.write_text(JOB + '[model.start]\nmodel = "gone.safetensors"\n')
    assert call("submit", job_file, "--upload") == 2
    assert "model.start.model: there is no file" in capsys.readouterr().err


def test_a_file_that_can_not_be_uploaded_is_wrong_input(server: RunningServer, tmp_path: Path, capsys: Any) -> None:
    empty, text = tmp_path / "empty.csv", tmp_path / "rows.txt"
    empty.touch()
    text.write_bytes(CONTENT)
    for path, message in (
        (tmp_path / "none.csv", "can't be read: No such file"),
        (tmp_path, "can't be read: Is a directory"),
        (empty, "is empty"),
        (text, "must end in .csv"),
    ):
        assert call("datasets", "upload", path) == 2
        assert message in capsys.readouterr().err


def test_an_interrupted_upload_says_how_to_go_on(
    server: RunningServer, file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "upload", interrupted)
    assert call("datasets", "upload", file) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


def test_only_what_the_server_has_not_is_sent(
    server: RunningServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_file, "PART_BYTES", 100)
    monkeypatch.setattr(upload_file, "CALL_BYTES", 300)
    told = []
    with Client(server.address) as client:
        with pytest.raises(ServerError, match="disk is full"):
            full_after(monkeypatch, 1000, lambda: client.upload(file))
        data_set = client.upload(file, told=lambda *advance: told.append(advance))
        assert client.get_data_set("rows.csv") == data_set
        with pytest.raises(JobNotFound):
            client.get_data_set("none.csv")
    sent = [done - 100 for what, done, _ in told if what == "uploading"]
    assert (sent[0], told[-1]) == (1000, ("checking", len(CONTENT), len(CONTENT)))
    assert all(size_bytes == len(CONTENT) for _, _, size_bytes in told)


def full_after(monkeypatch: pytest.MonkeyPatch, size_bytes: int, action: Any) -> None:
    """Do something while the server's disk takes no upload beyond so many bytes."""
    append = Uploads.append

    def limited(self: Uploads, sha256: str, offset: int, content: bytes) -> int:
        if offset >= size_bytes:
            raise StorageFull("the server's disk is full")
        return append(self, sha256, offset, content)

    with monkeypatch.context() as patch:
        patch.setattr(Uploads, "append", limited)
        action()


def test_a_file_that_changes_while_it_is_uploaded_is_refused(
    server: RunningServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(content: bytes) -> Any:
        return lambda what, *_: file.write_bytes(content) if what == "hashing" else None

    with Client(server.address) as client:
        with pytest.raises(InvalidJob, match="did the file change"):
            client.upload(file, told=change(CONTENT.replace(b"7", b"8")))
        file.write_bytes(CONTENT)
        with pytest.raises(DataFileError, match="became shorter"):
            client.upload(file, told=change(CONTENT[:100]))


def test_a_server_that_is_away_is_waited_for_and_not_for_ever(tmp_path: Path, file: Path) -> None:
    with running_server(tmp_path / "home") as server:
        address = server.address
    with Client(address) as client, pytest.raises(ServerUnavailable):
        client.upload(file, reconnect_timeout_s=0.3)
