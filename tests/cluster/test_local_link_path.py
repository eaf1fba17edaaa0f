"""`chainrule server --local-link PATH`: a socket that workers in other containers reach through a volume."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from chainrule import Client, load_job_file
from chainrule.transport.local_link.listener import why_unsupported
from tests.cluster.support import COMMAND, EXAMPLES, RestartableServer

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(why_unsupported() is not None, reason=str(why_unsupported())),
]


def test_workers_share_memory_by_the_socket_s_path_also_after_a_kill(marker: str, tmp_path: Path) -> None:
    path = tmp_path / "link.sock"
    spec = load_job_file(EXAMPLES / "two_layer.toml")
    spec.training.epochs = 3
    with RestartableServer(tmp_path / "home", workers=2, options=["--local-link", str(path)]) as server:
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o600
        for _ in range(2):
            with Client(server.address) as client:
                *_, last = client.watch_job(client.create_job(spec).job_id)
            assert last.progress.transport == "shared-memory"
            server.end()
            assert path.is_socket()  # kill -9 leaves it; the next server takes its place
            server.start()
        assert server.end(signal.SIGTERM) == 0
        assert not path.exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--local-link", "nowhere/link.sock"], 1, "error: --local-link: nowhere/link.sock can't be listened on"),
        (["--local-link", "x" * 200], 1, "a socket's path has at most 107 bytes"),
        (["--local-link", "link.sock", "--transport", "grpc"], 2, "leave one of them away"),
    ],
)
def test_a_socket_that_cannot_be_had_is_refused(
    options: list[str], code: int, said: str, marker: str, tmp_path: Path
) -> None:
    command = [*COMMAND, "server", "--port", "0", "--home", str(tmp_path / "home"), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
