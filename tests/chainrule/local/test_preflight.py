"""What is wrong with a machine is told before a job starts on it, by the checks of `chainrule doctor`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import grpc
import pytest

import chainrule
from chainrule.cli.app import run
from chainrule.client.grpc_errors import translated
from chainrule.local import preflight
from chainrule.process import doctor
from chainrule.v1 import job_service_pb2 as api

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "csv_table.toml"
GIB = 1 << 30
pytest.importorskip("pyarrow")


def test_only_what_is_not_well_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "available_processors", lambda: 2)
    monkeypatch.setattr(preflight, "available_memory_bytes", lambda: 4 * GIB)
    monkeypatch.setattr(preflight, "why_unsupported", lambda: "this kernel makes none")

    def checks(transport: str, worker_count: int = 2) -> list[str]:
        found = preflight.local_cluster(worker_count=worker_count, transport=transport)
        return [each.check for each in found if each.check != "temporary files"]

    assert checks("grpc") == []
    assert checks("auto") == ["shared memory"]
    assert checks("grpc", worker_count=3) == ["processors"]
    monkeypatch.setattr(preflight, "available_memory_bytes", lambda: GIB // 8)
    assert checks("grpc") == ["memory"]


def test_a_job_that_may_not_fit_is_a_warning_with_both_sizes() -> None:
    takes = api.JobEstimate(server_bytes=GIB, worker_bytes=2 * GIB)
    assert preflight.job_memory(takes, worker_count=2, available_bytes=6 * GIB).state == "ok"
    assert preflight.job_memory(takes, worker_count=2, available_bytes=None).state == "ok"
    found = preflight.job_memory(takes, worker_count=3, available_bytes=6 * GIB)
    assert preflight.told(found) == (
        "warning: memory: the job may take 7.2 GiB with its workers, and 6.0 GiB are free; "
        "take fewer workers, a smaller batch, or a machine with more"
    )


def test_threads_that_the_environment_asks_for_are_said_not_to_count() -> None:
    assert doctor.blas_threads({"OMP_NUM_THREADS": "1"}).found == "BLAS has one in each server and worker"
    assert doctor.blas_threads({"OMP_NUM_THREADS": "8"}).found.startswith("OMP_NUM_THREADS=8 counts for other programs")


@pytest.mark.cluster
def test_train_tells_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "available_processors", lambda: 1)
    monkeypatch.setattr("chainrule.cli.commands.train.available_memory_bytes", lambda: GIB // 8)
    assert run(["train", str(EXAMPLE), "--workers", "2", "-o", str(tmp_path / "model.safetensors")]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "warning: processors: 2 workers share 1" in said[0]
    assert any(line.startswith("warning: memory: the job may take") for line in said)


def test_shared_memory_that_was_asked_for_must_be_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "why_unsupported", lambda: "this kernel makes none")
    assert run(["train", str(EXAMPLE), "--transport", "shared-memory"]) == 2
    assert capsys.readouterr().err.endswith(
        "error: --transport: shared-memory can't be had: this kernel makes none; take auto or grpc\n"
    )


def test_a_folder_of_temporary_files_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nothing")
    assert run(["train", str(EXAMPLE), "--workers", "1"]) == 1
    assert "error: temporary files: /proc/nothing can't be written" in capsys.readouterr().err
    with pytest.raises(chainrule.ClusterError, match=r"no temporary folder can be made .*; make room, or name another"):
        chainrule.LocalCluster(workers=1)


@pytest.mark.cluster
def test_a_local_cluster_warns_of_a_job_that_may_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.local.cluster.available_memory_bytes", lambda: GIB // 16)
    with chainrule.LocalCluster(workers=1, data_root=EXAMPLE.parent) as client:
        with pytest.warns(RuntimeWarning, match="the job may take") as caught:
            job = client.submit(EXAMPLE, epochs=1)
        assert caught[0].filename == __file__
        job.cancel()


class Unanswered(grpc.RpcError):
    """A call to a server that isn't there."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "Failed to connect to remote host: Connection refused"

    def trailing_metadata(self) -> Any:
        return ()


@pytest.mark.parametrize(
    ("address", "is_told"), [("trainer.example:50051", True), ("127.0.0.1:50051", False), ("unix:/run/x", False)]
)
def test_a_server_that_does_not_answer_by_a_proxy_names_the_proxy(
    address: str, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    said = str(translated(Unanswered(), address, 1.0, chainrule.Credentials()))
    assert ("export no_proxy=trainer.example" in said) is is_told
