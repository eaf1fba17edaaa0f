"""A server, workers and clients as processes, over TLS with tokens: the same bits as without."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.support import COMMAND, Train

pytestmark = pytest.mark.cluster
TIMEOUT_S = 60.0
ANYWHERE = "0.0.0.0"  # noqa: S104


def chainrule(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def token(folder: Path, name: str, role: str) -> Path:
    done = chainrule("token", "create", "--name", name, "--role", role, "--tokens", "tokens", cwd=folder)
    assert done.returncode == 0, done.stderr
    path = folder / f"{name}.token"
    path.write_text(done.stdout)
    return path


@contextmanager
def process(*arguments: str, cwd: Path, environment: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until the end of the block."""
    running = subprocess.Popen(
        [*COMMAND, *arguments], cwd=cwd, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    try:
        yield running
    finally:
        running.terminate()
        running.communicate(timeout=TIMEOUT_S)


def test_two_machines_need_four_commands_and_give_the_same_bits(
    train: Train, shortened: Callable[..., Path], tmp_path: Path
) -> None:
    """As docs/security.md says, but that both machines are this one."""
    job_file = shortened("two_layer", epochs=3)
    expected = train(job_file, workers=1)["parameters_sha256"]
    assert chainrule("certificates", "create", cwd=tmp_path).returncode == 0
    worker, alice, watcher = (
        token(tmp_path, name, role) for name, role in (("w", "worker"), ("alice", "client"), ("o", "observer"))
    )
    listening = ["--tls-certificate", "certificates/server.pem", "--tls-key", "certificates/server.key"]
    options = ["--host", ANYWHERE, "--port", "0", "--home", "home", "--tokens", "tokens", "--transport", "grpc"]
    with process("server", *options, *listening, cwd=tmp_path) as server:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["address"].rpartition(":")[2]
        here = ["--server", f"127.0.0.1:{port}", "--tls-ca", "certificates/ca.pem"]
        with process("worker", *here, "--token-file", str(worker), cwd=tmp_path):
            trusted = {"CHAINRULE_TOKEN": alice.read_text()}
            done = chainrule("submit", *here, str(job_file), "--watch", "--json", cwd=tmp_path, **trusted)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout.splitlines()[-1])["result"]["parameters_sha256"] == expected
        # The same by the environment alone, with a role that only looks.
        variables = {"CHAINRULE_SERVER": here[1], "CHAINRULE_TLS_CA": "certificates/ca.pem"}
        variables["CHAINRULE_TOKEN_FILE"] = str(watcher)
        assert chainrule("list", cwd=tmp_path, **variables).returncode == 0
        refused = chainrule("submit", str(job_file), cwd=tmp_path, **variables)
        assert (refused.returncode, "'o' has the role observer" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", ANYWHERE], "--insecure does without"),
        (["--tls-certificate", "missing.pem", "--tls-key", "missing.key"], "missing.pem can't be read"),
        (["--tls-certificate", "missing.pem"], "both --tls-certificate and --tls-key"),
        (["--tokens", "missing"], "the tokens' file missing can't be read"),
    ],
)
def test_a_server_that_could_not_be_trusted_does_not_start(tmp_path: Path, options: list[str], said: str) -> None:
    done = chainrule("server", "--port", "0", "--home", "home", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_worker_that_is_not_let_in_says_why_and_ends(tmp_path: Path) -> None:
    assert chainrule("certificates", "create", "--days", "20", cwd=tmp_path).returncode == 0
    alice = token(tmp_path, "alice", "client")
    listening = ["--tls-certificate", "certificates/server.pem", "--tls-key", "certificates/server.key"]
    with process("server", "--port", "0", "--home", "home", "--tokens", "tokens", *listening, cwd=tmp_path) as server:
        assert server.stdout is not None
        here = ["worker", "--server", json.loads(server.stdout.readline())["address"]]
        secured = [*here, "--tls-ca", "certificates/ca.pem"]
        own = ["--tls-certificate", "certificates/worker.pem", "--tls-key", "certificates/worker.key"]
        for options, said in (
            ([*secured, *own], "this worker's certificate certificates/worker.pem expires on"),
            (here, "speaks TLS; name its authority"),
            (secured, "the call shows no token"),
            ([*secured, "--token-file", str(alice)], "'alice' has the role client; Train is for admin and worker"),
            ([*secured, "--token-file", "none"], "the token's file none can't be read"),
        ):
            done = chainrule(*options, cwd=tmp_path)
            assert done.returncode == 1, options
            assert said in done.stderr


def test_the_unix_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with process("server", "--port", "0", "--home", "home", "--socket", str(path), cwd=tmp_path) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_local_cluster_ignores_credentials_that_are_for_another_server(
    train: Train, shortened: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAINRULE_TLS_CA", "/no/such/file")
    monkeypatch.setenv("CHAINRULE_TOKENS", "/no/such/file")
    done = train(shortened("two_layer", epochs=1), workers=1)
    assert done["exit_code"] == 0, done["stderr"]
