"""Jobs that wait hold no rows in memory, and those with the same rows have one file of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from tests.server.in_process import running_server

TIMEOUT_S = 60.0
JOBS = 20


def test_jobs_in_the_queue_on_one_table_have_one_file_and_it_goes_with_the_last(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", features=generator.normal(size=(400, 5)), target=generator.normal(size=400))
    spec = job_pb2.JobSpec(name="queued", data=job_pb2.DataSpec(uri="file:t.npz"))
    spec.model.loss = "(w @ x - y)**2"
    spec.model.parameters.add(name="w", shape=["d"])
    spec.training.epochs, spec.training.batch_size, spec.training.shards = 1, 8, 8
    with running_server(tmp_path) as server:
        request = api.CreateJobRequest(spec=spec)
        made = [server.jobs.CreateJob(request, timeout=TIMEOUT_S).job for _ in range(JOBS)]
        jobs = server.run(lambda: [server.scheduler.jobs.find(each.job_id) for each in made])
        rows = [job.prepared.rows for job in jobs if job.prepared is not None]
        assert all(each.own is None for each in rows)
        files = [path for path in (tmp_path / "rows").iterdir() if path.is_file()]
        assert len(files) == 1
        assert len({each.file for each in rows}) <= 1
        del rows
        for job in made[:-1]:
            server.jobs.CancelJob(api.CancelJobRequest(job_id=job.job_id), timeout=TIMEOUT_S)
        assert files[0].exists()
        server.jobs.CancelJob(api.CancelJobRequest(job_id=made[-1].job_id), timeout=TIMEOUT_S)
        assert not files[0].exists()
