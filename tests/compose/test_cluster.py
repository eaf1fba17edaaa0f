"""`docker compose up`: what a new user does, and how the containers are shut in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest

from chainrule import load_job_file
from chainrule.errors import NotAllowed, NotAuthenticated
from tests.compose.support import BASE_IMAGE, Cluster, docker

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]
IMAGE_BYTES = 350e6


def test_cli_trains_a_job_of_the_mounted_folder(cluster: Cluster, brief_file: Path, undisturbed_brief: str) -> None:
    shown = cluster.compose("run", "--rm", "-T", "cli", "submit", f"/jobs/{brief_file.name}", "--watch")
    assert re.search(r"parameters SHA-256 +(\w+)", shown)[1] == undisturbed_brief  # type: ignore[index]


def test_a_job_reads_its_rows_from_the_mounted_folder(cluster: Cluster) -> None:
    rows = "".join(f"{i},{2 * i}\n" for i in range(64))
    (cluster.jobs / "rows.csv").write_text(f"x,y\n{rows}")
    (cluster.jobs / "rows.toml").write_text(
        'name = "rows"\n[model]\nprediction = "w @ x"\nloss = "(prediction - y)**2"\n[model.parameters]\nw = ["d"]\n'
        '[data]\nuri = "file:rows.csv"\ntarget = "y"\n[training]\nepochs = 5\nbatch_size = 16\n'
    )
    shown = cluster.compose("run", "--rm", "-T", "cli", "submit", "/jobs/rows.toml", "--watch")
    assert "succeeded" in shown


def test_containers_and_this_machine_give_the_same_bits(undisturbed_brief: str, brief_file: Path, image: str) -> None:
    version = docker("run", "--rm", "--entrypoint", "python", image, "-c", "import numpy; print(numpy.__version__)")
    if version.strip() != numpy.__version__:
        pytest.skip(f"the image has numpy {version.strip()}, this machine {numpy.__version__}")
    command = [sys.executable, "-P", "-m", "chainrule", "train", str(brief_file), "--workers", "2", "--json"]
    done = subprocess.run(command, cwd=brief_file.parent, capture_output=True, text=True, timeout=240, check=True)
    assert json.loads(done.stdout)["parameters_sha256"] == undisturbed_brief


def test_nobody_without_a_certificate_gets_in(cluster: Cluster) -> None:
    command = [sys.executable, "-P", "-m", "chainrule", "list", "--server", cluster.address]
    for more in ([], ["--tls-ca", str(cluster.folder / "certificates/ca.pem")]):
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr


def test_the_documented_command_makes_a_token_that_lets_in_as_what_it_says(cluster: Cluster, job_file: Path) -> None:
    tokens = "/var/lib/chainrule/tokens"
    command = ["chainrule", "token", "create", "--name", "anna", "--role", "observer", "--tokens", tokens]
    token = cluster.compose("exec", "-T", "server", *command).strip()
    assert re.fullmatch(r"chainrule_[\w-]{43}", token)
    assert "anna observer" in cluster.compose("exec", "-T", "server", "cat", tokens)
    with cluster.client(token) as anna:
        deadline_s = time.monotonic() + 60
        while True:
            try:
                anna.list_jobs()
                break
            except NotAuthenticated:  # the server reads the tokens again within a second
                assert time.monotonic() < deadline_s, "the printed token is not let in"
                time.sleep(0.1)
        with pytest.raises(NotAllowed, match="'anna' has the role observer"):
            anna.create_job(load_job_file(job_file))
    with cluster.client(token[::-1]) as stranger, pytest.raises(NotAuthenticated, match="the token isn't known here"):
        stranger.list_jobs()


@pytest.mark.parametrize("service", ["server", "worker"])
def test_a_container_has_no_root_no_capabilities_and_nowhere_to_write(cluster: Cluster, service: str) -> None:
    container = cluster.containers(service)[0]
    (told,) = json.loads(docker("inspect", container))
    host = told["HostConfig"]
    assert told["Config"]["User"] == "10001:10001"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["LogConfig"]["Config"]["max-size"] == "10m"
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    tried = "touch /opt/chainrule/x || touch /usr/x || touch /certificates/x"
    assert docker("exec", container, "sh", "-c", f"{{ {tried}; }} 2>/dev/null && echo wrote || echo refused") == (
        "refused\n"
    )


def test_a_worker_s_container_is_healthy_only_while_its_worker_has_joined(cluster: Cluster) -> None:
    worker = cluster.containers("worker")[0]
    check = ("exec", worker, "sh", "/usr/local/bin/worker-is-joined")
    docker(*check)
    # Another worker of the same container, whose server isn't there.
    command = "exec chainrule worker --server localhost:1 --connect-timeout-s 60"
    docker("exec", "--detach", worker, "sh", "-c", f"{command} & wait")
    deadline_s = time.monotonic() + 60
    while subprocess.run(["docker", *check], capture_output=True, timeout=60, check=False).returncode == 0:
        assert time.monotonic() < deadline_s, "a worker without a server is called well"
        time.sleep(0.2)
    docker("restart", worker)


def test_only_the_one_shot_service_has_the_authority_s_key(cluster: Cluster) -> None:
    for service in ("server", "worker"):
        found = cluster.compose(
            "exec", "-T", service, "sh", "-c", "ls /certificates; grep -rl CERTIFICATE /certificates"
        )
        assert "ca.pem" in found
        assert "ca.key" not in found
    assert "worker.key" not in cluster.compose("exec", "-T", "server", "ls", "/certificates")
    assert "server.key" not in cluster.compose("exec", "-T", "worker", "ls", "/certificates")


def test_the_image_is_at_most_350_mb_beyond_its_base(image: str) -> None:
    size, base = (int(docker("image", "inspect", "--format", "{{.Size}}", each)) for each in (image, BASE_IMAGE))
    assert size - base <= IMAGE_BYTES, f"{(size - base) / 1e6:.0f} MB"


def test_the_number_of_workers_follows_the_container_s_processors_and_not_the_machine_s(image: str) -> None:
    program = "from chainrule.process.lifecycle import available_processors as count; print(count())"
    for limit in ("1", "1.9"):
        counted = docker("run", "--rm", "--cpus", limit, "--entrypoint", "python", image, "-c", program)
        assert counted == "1\n"


def test_containers_share_memory_with_the_server_where_the_overlay_says_so(
    image: str, brief_file: Path, undisturbed_brief: str, tmp_path: Path
) -> None:
    with Cluster(image, tmp_path, ["deploy/compose/shared-memory.yml"]) as cluster:
        job = cluster.wait_for_end(cluster.submit(brief_file))
    assert job.progress.transport == "shared-memory"
    assert job.result.parameters_sha256 == undisturbed_brief
