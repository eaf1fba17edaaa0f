"""A disk that is really full, and numbers that go wrong, with real processes."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from chainrule.client.blocking.client import Client
from chainrule.local.processes import LocalProcesses
from chainrule.v1 import job_pb2
from tests.cluster.jobs import Reference, disturbed, large, last, small
from tests.cluster.support import RestartableServer, wait_for

pytestmark = pytest.mark.cluster
DISK_BYTES = 8 << 20
# Room for the database, but not for a checkpoint of 2 MB.
ROOM_BYTES = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    folder = tmp_path / "home"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "chainrule-test", str(folder)]
    unmount = ["umount", "--lazy", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nothing can be mounted here: {getattr(error, 'stderr', b'').decode().strip() or error}")
    try:
        yield folder
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(unmount, check=True, capture_output=True, timeout=60)


def events_of(client: Client, job_id: str) -> list[job_pb2.JobEvent]:
    return next(iter(client.watch_updates(job_id, after_event=0))).events[:]


def test_on_a_full_disk_training_goes_on_and_nothing_half_written_is_ever_read(
    marker: str, disk: Path, data_root: Path, reference: Reference
) -> None:
    spec = disturbed(large)
    spec.training.min_workers = 1
    spec.training.epochs = 60
    spec.training.checkpoint_every_steps = 5
    options = ["--data-root", str(data_root), "--checkpoint-every-s", "0"]
    with RestartableServer(disk, workers=1, options=options) as server, Client(server.address) as client:
        job_id = client.create_job(spec).job_id
        filler = disk / "filler"
        filler.write_bytes(bytes(DISK_BYTES - ROOM_BYTES))

        def failed() -> bool:
            return any(event.HasField("checkpoint_failed") for event in events_of(client, job_id))

        wait_for(failed)
        (failure,) = [
            each.checkpoint_failed for each in events_of(client, job_id) if each.HasField("checkpoint_failed")
        ]
        assert "space" in failure.reason
        step = client.get_job(job_id).progress.step
        wait_for(lambda: client.get_job(job_id).progress.step > step)
        # Whatever a checkpoint left half-written, the next server doesn't read it.
        server.end()
        filler.unlink()
        server.start()
        assert last(client, job_id).result.parameters_sha256 == reference(spec)
        assert not any(event.HasField("checkpoint_damaged") for event in events_of(client, job_id))


@pytest.mark.parametrize("transport", ["grpc", "shared-memory"])
def test_numbers_that_go_wrong_fail_the_job_with_step_and_shard_and_leave_the_last_good_parameters(
    transport: str, marker: str, tmp_path: Path
) -> None:
    spec = small(epochs=200)
    spec.model.prediction = "w @ (V @ x)"
    spec.training.optimizer.learning_rate = 2.0
    with (
        LocalProcesses(2, None, transport) as cluster,
        Client(cluster.address, credentials=cluster.credentials) as client,
    ):
        job_id = client.create_job(spec).job_id
        job = job_pb2.Job()
        for job in client.watch_job(job_id):  # noqa: B007 - the last is wanted
            pass
        path = client.download_model(job_id, tmp_path / "model.safetensors")
    assert job.state == job_pb2.JOB_STATE_FAILED
    found = re.search(r"step (\d+): .* not finite", job.error.message)
    assert found is not None, job.error.message
    assert "shard" in job.error.message
    assert job.progress.step == int(found[1]) - 1 > 0
    assert all(np.isfinite(tensor).all() for tensor in load_file(path).values())
