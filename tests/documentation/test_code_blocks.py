"""Every code block of the documentation works as it stands, or says above it why it isn't run."""

from __future__ import annotations

import re
import shutil
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.client.blocking.client import Client
from chainrule.spec.job_file import load_job_file, parse_job
from chainrule.v1 import job_pb2
from tests.cluster.support import EXAMPLES, RestartableServer, ended
from tests.documentation.code_blocks import Block, Reader, blocks_of, reader_environment

pytest.importorskip("sklearn")
pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
# engine/README.md has a test of its own, README.es.md shows what README.md shows, decisions are of their day.
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if "decisions" not in page.parts and page.name not in ("CHANGELOG.md", "README.es.md")
)
RUN = ("python", "sh", "bash", "console")


def pages_with(*languages: str) -> list[Path]:
    """The pages that have a block in one of these languages which is to be run."""
    return [page for page in PAGES if any(b.language in languages and not b.why_not for b in blocks_of(page))]


def once(pages: list[Path]) -> list[Path]:
    """Without the translations whose blocks are those of their original but for the comments."""
    originals = {_code_of(page) for page in pages if page.parent.name != "es"}
    return [page for page in pages if page.parent.name != "es" or _code_of(page) not in originals]


def _code_of(page: Path) -> tuple[str, ...]:
    return tuple(re.sub(r" *#.*", "", block.code) for block in blocks_of(page) if block.language in RUN)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartableServer]:
    """A server with two workers, for pages that start none of their own."""
    with RestartableServer(tmp_path_factory.mktemp("documentation") / "home", workers=2) as running:
        yield running


@pytest.fixture
def reader(server: RestartableServer, tmp_path: Path) -> Iterator[Reader]:
    """Somebody in a folder with the examples, a table of rows to predict, and the model of the latest job."""
    folder = tmp_path / "reader"
    shutil.copytree(EXAMPLES, folder / "examples")
    shutil.copytree(ROOT / "tests" / "documentation" / "files", folder, dirs_exist_ok=True)
    spec = load_job_file(EXAMPLES / "four_layer.toml")
    spec.training.epochs = 20
    with Client(server.address) as client:
        job_id = client.create_job(spec).job_id
        assert ended(client, job_id).state == job_pb2.JOB_STATE_SUCCEEDED, server.log()
        client.download_model(job_id, folder / "model.safetensors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    someone = Reader(folder, reader_environment(tmp_path, server.address), port)
    yield someone
    someone.close()


@pytest.mark.parametrize("page", once(pages_with(*RUN)), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_runs_as_it_stands(
    page: Path, reader: Reader, server: RestartableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [block for block in blocks_of(page) if block.language in RUN and not block.why_not]
    # A page that starts no server of its own talks to the one that runs.
    if "chainrule server" not in "".join(block.code for block in blocks):
        reader.port = int(server.address.rpartition(":")[2])
    for name in ("HOME", "CHAINRULE_SERVER", "PATH"):
        monkeypatch.setenv(name, reader.environment[name])
    for block in blocks:
        if block.language == "python":
            block = Block(block.page, block.line, block.language, _at_port(block.code, reader.port), "")
        reader.run(block)


@pytest.mark.parametrize("page", pages_with("toml"), ids=lambda page: str(page.relative_to(ROOT)))
def test_job_files_that_a_page_shows_are_right(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "toml" and not block.why_not:
            table = tomllib.loads(block.code)
            if table.keys() <= {"name", "model", "data", "training", "priority", "labels"}:
                parse_job(block.code, source=str(block))


def test_what_is_not_run_says_why() -> None:
    skipped = [block for page in PAGES for block in blocks_of(page) if block.why_not]
    assert all(len(block.why_not.split()) >= 2 for block in skipped), [str(block) for block in skipped]


def _at_port(code: str, port: int) -> str:
    return code.replace("50051", str(port))
