"""What Prometheus reads of a real server that trains, beside what the server tells of its jobs."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chainrule.client.blocking.client import Client
from chainrule.v1 import job_pb2
from chainrule_server.training.totals import PHASES
from tests.cluster.support import RestartableServer

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("marker")]

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/metrics.md"
# What asks Prometheus for metrics by name.
ASKED = ("deploy/compose/grafana/chainrule.json", "docs/kubernetes.md", "docs/metrics.md")
TIMEOUT_S = 60.0
# A metric's name, the values of its labels in the order of their names.
Key = tuple[str, ...]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RestartableServer]:
    options = ["--metrics-port", "0", "--transport", "grpc"]
    with RestartableServer(tmp_path / "home", workers=2, options=options) as running:
        yield running


def text_of(server: RestartableServer) -> str:
    with urllib.request.urlopen(f"http://{server.answer['metrics_address']}/metrics", timeout=TIMEOUT_S) as answer:
        return answer.read().decode()


def scrape(server: RestartableServer) -> dict[Key, float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text_of(server))
        for sample in family.samples
    }


def spec(*, epochs: int) -> job_pb2.JobSpec:
    found = job_pb2.JobSpec(name="counted")
    found.model.prediction, found.model.loss = "w @ tanh(V @ x)", "(prediction - y)**2"
    found.model.parameters.add(name="V", shape=["64", "d"])
    found.model.parameters.add(name="w", shape=["64"])
    found.data.uri = "sklearn:diabetes"
    training = found.training
    training.epochs, training.batch_size, training.shards, training.min_workers = epochs, 64, 4, 2
    training.checkpoint_every_steps = 20
    # Shards that move change what a step pushes.
    training.stragglers.factor = 0
    return found


def test_the_figures_agree_with_those_of_the_jobs(server: RestartableServer) -> None:
    with Client(server.address) as client:
        job_id = client.create_job(spec(epochs=200)).job_id
        *_, job = client.watch_job(job_id)
        events = [event for update in client.watch_updates(job_id, after_event=0) for event in update.events]
    found, step = scrape(server), job.progress.step
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert step == job.progress.total_steps > 1000
    assert found["chainrule_steps_total",] == step
    assert found["chainrule_samples_total",] == 200 * job.result.row_count
    assert found["chainrule_pushed_bytes_total",] == step * job.progress.step_cost.pushed_bytes > 0
    assert found["chainrule_pulled_bytes_total",] == step * job.progress.step_cost.pulled_bytes > 0
    for phase in PHASES:
        assert found["chainrule_step_phase_seconds_count", phase] == step
        assert found["chainrule_step_phase_seconds_bucket", "+Inf", phase] == step
        assert 0 <= found["chainrule_step_phase_seconds_sum", phase] < job.result.training_s
    written = [event.checkpoint_written for event in events if event.HasField("checkpoint_written")]
    assert found["chainrule_checkpoints_total", "written"] == len(written) > 0
    assert found["chainrule_checkpoint_bytes_total",] == sum(each.size_bytes for each in written)
    assert found["chainrule_checkpoint_seconds_count",] == len(written)
    assert found["chainrule_workers_connected",] == 2
    assert found["chainrule_jobs", "succeeded"] == 1
    assert found["chainrule_jobs", "running"] == 0
    assert found["chainrule_rpcs_total", "OK", "chainrule.v1.JobService/CreateJob"] == 1
    assert found["chainrule_rpc_seconds_count", "chainrule.v1.JobService/CreateJob"] == 1
    assert found["chainrule_rpcs_open", "chainrule.v1.WorkerService/Train"] == 2
    assert found["chainrule_logged_events_total", "error"] == 0
    assert found["process_resident_memory_bytes",] > 1 << 20
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{server.answer['metrics_address']}/", timeout=TIMEOUT_S)


def test_a_job_has_labels_of_its_own_only_while_it_runs(server: RestartableServer) -> None:
    with Client(server.address) as client:
        job_id = client.create_job(spec(epochs=1_000_000)).job_id
        next(job for job in client.watch_job(job_id) if job.progress.epoch)
        first, second = scrape(server), scrape(server)
        now = client.get_job(job_id).progress
        client.cancel_job(job_id)
        after = scrape(server)
    labels = (job_id, "counted")
    key = ("chainrule_running_job_step", *labels)
    assert 0 < first[key] <= second[key] <= now.step
    assert first["chainrule_running_job_total_steps", *labels] == now.total_steps
    assert first["chainrule_running_job_workers", *labels] == 2
    assert first["chainrule_running_job_validation_loss", *labels] > 0
    assert first["chainrule_steps_total",] <= second["chainrule_steps_total",]
    assert first["chainrule_jobs", "running"] == 1
    assert after["chainrule_jobs", "cancelled"] == 1
    assert not [key for key in after if job_id in key]


def test_a_server_and_its_workers_log_every_event_as_a_line_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAINRULE_LOG_FORMAT", "json")
    with RestartableServer(tmp_path / "home", workers=2) as server, Client(server.address) as client:
        job_id = client.create_job(spec(epochs=20)).job_id
        *_, job = client.watch_job(job_id)
        written = [
            event.checkpoint_written.step
            for update in client.watch_updates(job_id, after_event=0)
            for event in update.events
            if event.HasField("checkpoint_written")
        ]
        lines = [json.loads(line) for line in server.log().splitlines()]
    assert {line["process"] for line in lines} == {"server", "worker-0", "worker-1"}
    assert all(line["event"] and line["message"] for line in lines)

    def told(name: str, *fields: str) -> list[tuple[object, ...]]:
        return [tuple(line[field] for field in fields) for line in lines if line["event"] == name]

    assert sorted(told("worker_joined", "worker")) == [("worker-0",), ("worker-1",)]
    assert sorted(told("joined", "process", "worker")) == [("worker-0", "worker-0"), ("worker-1", "worker-1")]
    assert told("job_started", "job") == [(job_id,)]
    assert told("checkpoint_written", "job", "step") == [(job_id, step) for step in written]
    assert written
    assert told("job_ended", "job", "step", "state") == [(job_id, job.progress.step, "JOB_STATE_SUCCEEDED")]


def test_what_pages_the_dashboard_and_the_autoscaler_name_is_what_the_server_tells(server: RestartableServer) -> None:
    with Client(server.address) as client:
        job_id = client.create_job(spec(epochs=1_000_000)).job_id
        next(job for job in client.watch_job(job_id) if job.progress.epoch)
        text = text_of(server)
        client.cancel_job(job_id)
    told = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("chainrule_") and not family.name.endswith("_created"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(label for label in sorted(family.samples[0].labels) if label != "le")
            told[name] = (family.type, labels, family.documentation)
    rows = re.findall(r"^\| `(chainrule_\w+)` \| (\w+) \| ([\w, ]*?) ?\| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert {name: (kind, labels, meaning) for name, kind, labels, meaning in rows} == told
    samples = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    named = {name: set(re.findall(r"\b(?:chainrule|process)_\w+", "\n".join(asked(name)))) for name in ASKED}
    assert all(named.values())
    assert {name: found - samples for name, found in named.items()} == {name: set() for name in ASKED}
    # The autoscaler's own comes from a rule on the page.
    (scaled_by,) = re.findall(r"metric: { name: (\w+) }", (ROOT / "deploy/kubernetes/autoscaler.yaml").read_text())
    assert f"name: {{ as: {scaled_by} }}" in (ROOT / "docs/kubernetes.md").read_text()


def asked(name: str) -> list[str]:
    """The queries of a file, in Prometheus' language."""
    text = (ROOT / name).read_text()
    if name.endswith(".json"):
        return [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]
    return re.findall(r"Query: '(.*)'", text) + re.findall(r"`([^`|]+ (?:==|>) [0-9][^`|]*)`", text)


def test_a_server_that_is_not_asked_answers_no_prometheus_and_loads_none_of_it(tmp_path: Path) -> None:
    program = "import sys, chainrule_server.__main__; print(*sys.modules)"
    command = [sys.executable, "-P", "-c", program]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert "chainrule_server.jobs.scheduler" in loaded
    assert "prometheus_client" not in loaded
    with RestartableServer(tmp_path / "home") as server:
        assert set(server.answer) == {"address"}


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            "-P",
            "-m",
            "chainrule_server",
            "--port",
            "0",
            "--home",
            str(tmp_path),
            "--metrics-port",
        ]
        done = subprocess.run([*command, str(port)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: --metrics-port: 127.0.0.1:{port} can't be listened on (Address already in use)" in done.stderr
    assert "Traceback" not in done.stderr
