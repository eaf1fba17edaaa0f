"""`chainrule doctor` finds what is wrong with a machine, and only that."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
from pathlib import Path

import pytest

from chainrule.cli.app import run
from chainrule.process import doctor


def test_an_old_python_is_wrong_and_a_new_one_is_not() -> None:
    assert doctor.python_version((3, 10, 2)).state == "wrong"
    assert doctor.python_version((3, 11, 0)).state == "ok"


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    def version_of(name: str) -> str:
        if name in ("safetensors", "pyarrow"):
            raise importlib.metadata.PackageNotFoundError
        return "1.0"

    needed, extras = doctor.packages(version_of)
    assert (needed.state, needed.mend) == ("wrong", "pip install safetensors")
    assert extras.state == "ok"
    assert "pyarrow (pip install 'chainrule[data]')" in extras.found


def test_a_blas_kernel_that_the_environment_chooses_is_told() -> None:
    library = {"user_api": "blas", "internal_api": "openblas", "version": "0.3", "architecture": "Haswell"}
    assert "OPENBLAS_CORETYPE=Haswell" in doctor.blas([library], {"OPENBLAS_CORETYPE": "Haswell"}).found
    assert doctor.blas([library], {}).found == "openblas 0.3 Haswell"
    assert doctor.blas([], {}).state == "warning"


def test_more_workers_than_processors_are_a_warning() -> None:
    assert doctor.processors(2, 8).mend == "take --workers 2"
    assert doctor.processors(2, 2).state == "ok"


def test_little_memory_is_a_warning() -> None:
    assert doctor.memory(100 << 20).state == "warning"
    assert doctor.memory(8 << 30).state == "ok"
    assert doctor.memory(None).state == "ok"


@pytest.mark.parametrize(
    ("environment", "host", "state"),
    [
        ({}, "trainer.example", "ok"),
        ({"https_proxy": "http://proxy:3128"}, "127.0.0.1", "ok"),
        ({"https_proxy": "http://proxy:3128"}, "trainer.example", "warning"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "trainer.example", "warning"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "localhost, .example"}, "trainer.example", "ok"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "other.example"}, "trainer.example", "warning"),
    ],
)
def test_a_proxy_between_client_and_server_is_a_warning(environment: dict[str, str], host: str, state: str) -> None:
    assert doctor.proxies(environment, host).state == state


def test_a_clock_that_was_never_set_is_wrong() -> None:
    assert doctor.clock(0.0).state == "wrong"
    assert doctor.clock(1.8e9).state == "ok"


def test_a_folder_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    assert doctor.folder("home", tmp_path / "not" / "made" / "yet").state != "wrong"
    (tmp_path / "file").write_text("")
    assert doctor.folder("home", Path("/proc/nothing")).state == "wrong"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_server_that_was_named_must_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as held:
        # Bound and not listening: nobody else gets the port, and nobody answers.
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        assert run(["doctor", "--server", address]) == 1
    output = capsys.readouterr()
    assert "mend: start it" in output.out
    assert output.err == "error: something is wrong here: server; each has its mend beside it\n"


def test_json_tells_every_finding(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAINRULE_SERVER", raising=False)
    monkeypatch.setenv("CHAINRULE_HOME", os.devnull + "/home")
    assert run(["doctor", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["is_well"] is False
    found = {each["check"]: each["state"] for each in answer["findings"]}
    assert found["home"] == "wrong"
    assert found["python"] == "ok"
