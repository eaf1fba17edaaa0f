"""Where the estimators' jobs run: a local cluster that all fits of this process share, or a server elsewhere.

The first fit starts the cluster, and the end of the process ends it. A job is deleted, with its data, after its fit: a
grid search leaves nothing behind.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chainrule.client.blocking.connection import Connection, connect
from chainrule.client.blocking.job import Job
from chainrule.errors import ChainruleError, ClusterError, JobNotEnded, PreconditionFailed, ServerError
from chainrule.local.cluster import LocalCluster
from chainrule.local.processes import HOME_PREFIX, LOCK_NAME


class Trained(NamedTuple):
    """What a job left. arrays: parameters (float32) and running statistics (float64) by name. result: `Job.result`."""

    arrays: dict[str, NDArray[Any]]
    result: dict[str, Any]


class _Shared:
    """The cluster of one process, and the folder of its jobs' rows."""

    def __init__(self, workers: int) -> None:
        self._owner = os.getpid()
        # With a lock like the clusters' own folders: what a killed process leaves goes when the next cluster starts.
        self._folder = Path(tempfile.mkdtemp(prefix=HOME_PREFIX))
        self._lock = (self._folder / LOCK_NAME).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.rows_folder = self._folder / "rows"
        self.rows_folder.mkdir()
        try:
            self.cluster = LocalCluster(workers=workers, data_root=self.rows_folder)
        except BaseException:
            self._remove_folder()
            raise
        atexit.register(self.close)

    def close(self) -> None:
        """End the cluster and remove the folder; in a fork of the process that it belongs to, do nothing."""
        if self._owner != os.getpid():
            return
        atexit.unregister(self.close)
        self.cluster.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()


# How often a fit looks whether the workers of its cluster live.
LOOK_S = 5.0
_lock = threading.Lock()
# By process: after a fork, what the parent started is here too, and stays the parent's.
_shared: dict[int, _Shared] = {}


def shared_cluster(workers: int) -> LocalCluster:
    """The cluster of this process, with at least so many workers that live. Raises ClusterError."""
    return _shared_of_this_process(workers).cluster


def _shared_of_this_process(workers: int) -> _Shared:
    with _lock:
        found = _shared.get(os.getpid())
        if found is not None:
            try:
                found.cluster.check_server()
                # Workers that died are replaced; none is ended, because another thread's job may need it.
                found.cluster.scale(max(workers, found.cluster.living_workers))
                return found
            except ClusterError:
                found.close()
        _shared[os.getpid()] = found = _Shared(workers)
        return found


def train(
    table: Mapping[str, Any], rows: Mapping[str, NDArray[Any]], *, workers: int, server: str | None, timeout_s: float
) -> Trained:
    """The job that `table` describes, but for its data, trained on these rows.

    table: as a job file has it. rows: the arrays of an .npz file of rows. server: HOST:PORT; None: the shared cluster.
    Raises ChainruleError: InvalidJob, JobFailed, JobNotEnded after timeout_s, or what a server or cluster raises."""
    with tempfile.TemporaryDirectory(prefix="chainrule-fit-") as folder, contextlib.ExitStack() as stack:
        if server is None:
            shared = _shared_of_this_process(workers)
            client: Connection = shared.cluster
            uri = stack.enter_context(_local_rows(shared.rows_folder, rows))
        else:
            client = stack.enter_context(connect(server))
            uri = stack.enter_context(_uploaded_rows(client, Path(folder), rows))
        training = {**table["training"], "min_workers": workers, "max_workers": workers}
        data = {"uri": uri, "validation_fraction": 0.0, "standardize": []}
        job = client.submit({**table, "data": data, "training": training})
        stack.callback(_forget, job)
        _wait(job, timeout_s=timeout_s, replaces=None if server is not None else workers)
        path = client.download_model(job.id, Path(folder) / "model.safetensors")
        return Trained(_arrays_of(path), job.result)


def _wait(job: Job, *, timeout_s: float, replaces: int | None) -> None:
    """Wait for a job's end. replaces: so many workers the shared cluster is kept at; None: it isn't ours.

    Raises JobFailed, JobCancelled, JobNotEnded, and ClusterError where the cluster's server has died."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        left_s = max(0.001, deadline_s - time.monotonic())
        try:
            job.wait(timeout_s=left_s if replaces is None else min(left_s, LOOK_S), progress=False)
            return
        except JobNotEnded:
            if time.monotonic() >= deadline_s:
                raise
        if replaces is not None:
            _shared_of_this_process(replaces)


@contextlib.contextmanager
def _local_rows(folder: Path, rows: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    path = folder / f"{uuid.uuid4().hex}.npz"
    np.savez(path, allow_pickle=False, **rows)
    try:
        yield f"file:{path.name}"
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _uploaded_rows(client: Connection, folder: Path, rows: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    # Equal files are one data set; the number makes this one ours alone, so that it can be deleted.
    number = uuid.uuid4().hex
    path = folder / f"{number}.npz"
    np.savez(path, allow_pickle=False, fit=np.array(number), **rows)
    data_set = client.upload(path)
    try:
        yield f"dataset:{data_set.sha256}"
    finally:
        # What went wrong with the fit says more than that the server couldn't be tidied.
        with contextlib.suppress(ServerError):
            client.delete_data_set(data_set.sha256)


def _forget(job: Job) -> None:
    """Delete the job; one that hasn't ended, because the wait for it was broken off, is cancelled first."""
    with contextlib.suppress(ChainruleError):
        if not job.refresh().has_ended:
            with contextlib.suppress(PreconditionFailed):
                job.cancel()
            for _ in job.watch(timeout_s=20.0):
                pass
        job.delete()


def _arrays_of(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors.numpy import load_file

    arrays: dict[str, NDArray[Any]] = load_file(path)
    return arrays
