"""Containers are killed, cut off, added and taken away in mid-job; the bits stay those of the undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compose.support import Cluster, docker

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def healthy(cluster: Cluster) -> None:
    """Whatever the test before has done: a server and two workers."""
    cluster.up()


def test_workers_may_be_scaled_from_2_to_4_to_1_while_a_job_runs(
    cluster: Cluster, job_file: Path, undisturbed: str
) -> None:
    job_id = cluster.submit(job_file)
    cluster.scale(4)
    assert len(cluster.containers("worker")) == 4
    step = cluster.wait_for_step(job_id, 1500).progress.step
    cluster.scale(1)
    assert len(cluster.containers("worker")) == 1
    cluster.wait_for_step(job_id, step + 100)
    assert cluster.wait_for_end(job_id).result.parameters_sha256 == undisturbed


def test_a_killed_worker_changes_no_bit(cluster: Cluster, job_file: Path, undisturbed: str) -> None:
    job_id = cluster.submit(job_file)
    docker("kill", cluster.containers("worker")[0])
    assert cluster.wait_for_end(job_id).result.parameters_sha256 == undisturbed


def test_a_killed_server_goes_on_with_the_job_when_it_is_started_again(
    cluster: Cluster, job_file: Path, undisturbed: str
) -> None:
    job_id = cluster.submit(job_file)
    server = cluster.containers("server")[0]
    docker("kill", server)
    docker("start", server)
    assert cluster.wait_for_end(job_id).result.parameters_sha256 == undisturbed


def test_a_server_process_that_dies_is_started_again_by_itself(
    cluster: Cluster, job_file: Path, undisturbed: str
) -> None:
    job_id = cluster.submit(job_file)
    # The lock in the server's home holds the number of its process.
    cluster.compose("exec", "-T", "server", "sh", "-c", "kill -9 $(cat /var/lib/chainrule/lock)")
    assert cluster.wait_for_end(job_id).result.parameters_sha256 == undisturbed


def test_a_worker_that_loses_the_network_and_gets_it_back_changes_no_bit(
    cluster: Cluster, job_file: Path, undisturbed: str
) -> None:
    job_id = cluster.submit(job_file)
    worker, network = cluster.containers("worker")[0], f"{cluster.project}_default"
    docker("network", "disconnect", network, worker)
    try:
        step = cluster.wait_for_step(job_id, 201).progress.step
        cluster.wait_for_step(job_id, step + 300)
    finally:
        docker("network", "connect", network, worker)
    assert cluster.wait_for_end(job_id).result.parameters_sha256 == undisturbed


def test_sigterm_ends_all_containers_in_mid_job_within_the_grace_time(
    cluster: Cluster, job_file: Path, undisturbed: str
) -> None:
    job_id = cluster.submit(job_file)
    containers = [*cluster.containers("server"), *cluster.containers("worker")]
    cluster.compose("stop")
    # One that the engine had to kill has 137.
    assert {docker("inspect", "--format", "{{.State.ExitCode}}", each).strip() for each in containers} == {"0"}
    cluster.up()
    assert cluster.wait_for_end(job_id).result.parameters_sha256 == undisturbed
