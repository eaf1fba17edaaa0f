"""The virtual environment, also on a Python without ensurepip: pip comes from a package index, here one of our own."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Index:
    """A package index that holds what a test puts into it."""

    def __init__(self) -> None:
        self.files: list[dict[str, Any]] = []
        self.contents: dict[str, bytes] = {}
        self.authorizations: list[str | None] = []

    def add(self, filename: str, content: bytes, *, sha256: str | None = None, **fields: Any) -> None:
        digest = sha256 or hashlib.sha256(content).hexdigest()
        self.files.append({"filename": filename, "url": f"../../{filename}", "hashes": {"sha256": digest}, **fields})
        self.contents[f"/{filename}"] = content


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    index = Index()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.authorizations.append(self.headers.get("Authorization"))
            content = index.contents.get(self.path)
            if self.path == "/simple/pip/":
                content = json.dumps({"files": index.files}).encode()
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield index
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def make_venv() -> ModuleType:
    specification = importlib.util.spec_from_file_location("make_venv", ROOT / "tools" / "make_venv.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run_without_ensurepip(module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(sys, "argv", ["make_venv.py", str(folder)])
    return int(module.main())


def test_without_ensurepip_pip_comes_from_the_index(
    index: Index, make_venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensurepip = pytest.importorskip("ensurepip", reason="its bundled pip is what the index of this test offers")
    bundled = list((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    if not bundled:
        pytest.skip("this Python keeps its bundled wheels elsewhere")
    index.add(bundled[0].name, bundled[0].read_bytes())
    assert run_without_ensurepip(make_venv, tmp_path / "venv", monkeypatch) == 0
    command = [str(tmp_path / "venv" / "bin" / "pip"), "--version"]
    assert str(tmp_path) in subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_the_newest_final_pip_for_this_python_is_taken(index: Index, make_venv: ModuleType, tmp_path: Path) -> None:
    index.add("pip-9.0-py3-none-any.whl", b"old")
    index.add("pip-24.10-py3-none-any.whl", b"wanted", **{"requires-python": ">=3.9"})
    index.add("pip-24.9-py3-none-any.whl", b"older, though its name sorts later")
    index.add("pip-25.0-py3-none-any.whl", b"withdrawn", yanked="broken")
    index.add("pip-26.0b1-py3-none-any.whl", b"a pre-release")
    index.add("pip-27.0-py3-none-any.whl", b"for later Pythons", **{"requires-python": ">=3.99"})
    index.add("pip-28.0.tar.gz", b"no wheel")
    assert make_venv.fetch_pip(tmp_path).read_bytes() == b"wanted"


def test_a_user_and_password_of_the_index_go_into_a_header(
    index: Index, make_venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("pip-25.0-py3-none-any.whl", b"wheel")
    address = make_venv.os.environ["PIP_INDEX_URL"].replace("http://", "http://someone:s%40cret@")
    monkeypatch.setenv("PIP_INDEX_URL", address)
    make_venv.fetch_pip(tmp_path)
    assert index.authorizations == ["Basic " + base64.b64encode(b"someone:s@cret").decode()] * 2


def test_a_pip_that_was_tampered_with_is_refused_in_one_line(
    index: Index,
    make_venv: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    index.add("pip-25.0-py3-none-any.whl", b"wheel", sha256="0" * 64)
    assert run_without_ensurepip(make_venv, tmp_path / "venv", monkeypatch) == 1
    message = capsys.readouterr().err
    assert "SHA-256" in message
    assert "apt-get install python3-venv" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [("http://127.0.0.1:9/simple", "refused"), ("file:///nowhere", "http://"), ("http://[", "Invalid")],
)
def test_an_index_that_cannot_be_reached_is_one_line(
    address: str,
    said: str,
    make_venv: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", address)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert run_without_ensurepip(make_venv, tmp_path / "venv", monkeypatch) == 1
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


def test_an_index_without_a_fitting_pip_is_said(index: Index, make_venv: ModuleType, tmp_path: Path) -> None:
    index.add("pip-27.0-py3-none-any.whl", b"for later Pythons", **{"requires-python": ">=3.99"})
    with pytest.raises(ValueError, match="no pip for this Python"):
        make_venv.fetch_pip(tmp_path)
