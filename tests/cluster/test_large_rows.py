"""Rows that are mapped by workers on the server's machine, and read over gRPC by others: the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chainrule.client.blocking.client import Client
from chainrule.local.cluster import LocalCluster
from chainrule.spec.job_file import parse_job
from chainrule.v1 import job_pb2
from chainrule_server.preparation.prepared_rows import SHARED_BYTES

pytestmark = pytest.mark.cluster
FEATURES = 32
JOB = f"""
name = "large"
[model]
prediction = "w @ tanh(V @ x)"
loss = "(prediction - y)**2"
[model.parameters]
V = [8, {FEATURES}]
w = [8]
[data]
uri = "file:rows.parquet"
target = "y"
[training]
epochs = 8
batch_size = 8192
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    row_count = SHARED_BYTES // (4 * FEATURES)
    random = np.random.default_rng(0)
    columns = {f"x{number}": random.normal(size=row_count).astype(np.float32) for number in range(FEATURES)}
    folder = tmp_path_factory.mktemp("rows")
    pq.write_table(pa.table(columns | {"y": columns["x0"] + columns["x1"]}), folder / "rows.parquet")
    return folder


def test_workers_that_map_the_rows_and_those_that_read_them_train_the_same_bits(folder: Path, marker: str) -> None:
    hashes = set()
    for transport, worker_count in (("auto", 2), ("auto", 3), ("grpc", 1)):
        with (
            LocalCluster(workers=worker_count, data_root=folder, transport=transport) as cluster,
            Client(cluster.address, credentials=cluster.credentials) as client,
        ):
            job = client.create_job(parse_job(JOB))
            mapping = set()
            for _ in client.watch_job(job.job_id):
                mapping |= {process for process in cluster.process_ids[1:] if maps_rows(process)}
            job = client.get_job(job.job_id)
            assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.error
            assert len(mapping) == (worker_count if transport == "auto" else 0)
            hashes.add(job.result.parameters_sha256)
    assert len(hashes) == 1


def maps_rows(process_id: int) -> bool:
    """Whether a process maps the rows of a job."""
    return any(line.endswith(".rows") for line in Path(f"/proc/{process_id}/maps").read_text().splitlines())
