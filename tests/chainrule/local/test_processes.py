"""A local cluster's processes: they listen, they are told of, and nothing is left."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from chainrule.client.blocking.client import Client
from chainrule.errors import ArgumentError, ClusterError, NotAuthenticated
from chainrule.local.cluster import LocalCluster
from chainrule.local.processes import ABANDONED_AFTER_S, LocalProcesses
from chainrule.security.credentials import Credentials


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, for this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def is_alive(process_id: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.cluster
def test_a_cluster_lives_as_long_as_its_block(temporary_folder: Path) -> None:
    old_handler = signal.getsignal(signal.SIGTERM)
    with LocalProcesses(workers=2) as cluster:
        process_ids = cluster.process_ids
        assert len(process_ids) == 3
        assert all(is_alive(each) for each in process_ids)
        cluster.check_server()
        assert cluster.living_workers == 2
    assert not any(is_alive(each) for each in process_ids)
    assert list(temporary_folder.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == old_handler


@pytest.mark.cluster
def test_nobody_else_on_the_machine_gets_into_a_cluster() -> None:
    with LocalProcesses(workers=1) as cluster:
        for stranger in (Credentials(), Credentials(token="chainrule_0123456789abcdef")):  # noqa: S106
            with Client(cluster.address, credentials=stranger) as client, pytest.raises(NotAuthenticated):
                client.list_jobs()
        with Client(cluster.address, credentials=cluster.credentials) as client:
            deadline_s = time.monotonic() + 60
            while not client.list_workers():
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
        token = str(cluster.credentials.token)
        for process_id in cluster.process_ids:
            shown = Path(f"/proc/{process_id}/cmdline").read_bytes()
            assert token.encode() not in shown, "command lines are everybody's to read"
        assert token not in repr(cluster)


@pytest.mark.cluster
def test_a_worker_that_dies_is_told_once() -> None:
    with LocalProcesses(workers=2) as cluster:
        os.kill(cluster.process_ids[1], signal.SIGKILL)
        deadline_s = time.monotonic() + 60
        while not (deaths := cluster.new_deaths()):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        assert [str(death) for death in deaths] == ["worker-1 ended (killed by SIGKILL)"]
        assert cluster.new_deaths() == []
        assert cluster.living_workers == 1


@pytest.mark.cluster
def test_a_server_that_cannot_start_says_why(temporary_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(temporary_folder))
    (temporary_folder / "chainrule_server").mkdir()
    (temporary_folder / "chainrule_server" / "__main__.py").write_text("raise SystemExit('error: no memory; add some')")
    (temporary_folder / "chainrule_server" / "__init__.py").write_text("")
    with pytest.raises(ClusterError) as caught, LocalProcesses(workers=1):
        pass
    assert str(caught.value) == "server ended (exit status 1): no memory; add some"


def test_without_room_for_its_tokens_a_cluster_says_so_and_leaves_nothing(
    temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_text(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(ClusterError, match=r"No space left on device.*make room"), LocalProcesses(workers=1):
        pass
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.cluster
def test_what_a_killed_parent_left_goes_with_the_next_start(temporary_folder: Path) -> None:
    folders = {name: temporary_folder / f"chainrule-{name}" for name in ("abandoned", "in-use", "new")}
    for folder in folders.values():
        folder.mkdir()
        (folder / "lock").touch()
        if folder.name != "chainrule-new":
            then_s = time.time() - 2 * ABANDONED_AFTER_S
            os.utime(folder / "lock", (then_s, then_s))
    (temporary_folder / "chainrule-other").mkdir()
    with (folders["in-use"] / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with LocalProcesses(workers=1):
            pass
    left = sorted(path.name for path in temporary_folder.iterdir())
    assert left == ["chainrule-in-use", "chainrule-new", "chainrule-other"]


def test_a_cluster_has_at_least_one_worker() -> None:
    for workers in (0, -1, True, "x"):
        with pytest.raises(ArgumentError, match=f"workers: must be a whole number of at least 1, got {workers!r}"):
            LocalProcesses(workers=workers)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="got -1"):
        LocalProcesses(workers=1).scale(-1)


def test_a_cluster_reads_no_folder_that_is_not_there(temporary_folder: Path) -> None:
    missing = temporary_folder / "nowhere"
    with pytest.raises(ArgumentError, match=f"data_root: there is no folder {missing}; make it"):
        LocalCluster(data_root=missing)
