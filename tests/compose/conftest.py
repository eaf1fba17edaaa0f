"""One image and one cluster of containers for all tests of this folder; without a Docker Engine they are skipped."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.support import EXAMPLES
from tests.compose.support import ROOT, Cluster, docker, why_no_engine

# Enough steps for a fault to come in the middle of them, and enough for a job that nothing disturbs.
EPOCHS = 1000
FEW_EPOCHS = 60


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The image of this checkout; CHAINRULE_TEST_IMAGE names one that is built already."""
    reason = why_no_engine()
    if reason is not None:
        pytest.skip(f"there is no Docker Engine: {reason}")
    if name := os.environ.get("CHAINRULE_TEST_IMAGE"):
        yield name
        return
    name = f"chainrule-test:{uuid.uuid4().hex[:8]}"
    docker("build", "--quiet", "--tag", name, str(ROOT))
    yield name
    docker("image", "rm", "--force", name)


@pytest.fixture(scope="session")
def cluster(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server and two workers, healthy, that all tests share."""
    with Cluster(image, tmp_path_factory.mktemp("compose")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def job_file(cluster: Cluster) -> Path:
    """The four-layer job, long enough to be disturbed, in the folder that the containers see as /jobs."""
    return _four_layer(cluster.jobs / "long.toml", EPOCHS)


@pytest.fixture(scope="session")
def brief_file(cluster: Cluster) -> Path:
    """The same job with fewer epochs."""
    return _four_layer(cluster.jobs / "brief.toml", FEW_EPOCHS)


@pytest.fixture(scope="session")
def undisturbed(image: str, job_file: Path) -> str:
    """The hash of the parameters that one worker, in one container, arrives at."""
    return _trained(image, job_file)


@pytest.fixture(scope="session")
def undisturbed_brief(image: str, brief_file: Path) -> str:
    """The same of the brief job."""
    return _trained(image, brief_file)


def _four_layer(path: Path, epochs: int) -> Path:
    text = (EXAMPLES / "four_layer.toml").read_text()
    path.write_text(re.sub(r"(?m)^epochs = .*$", f"epochs = {epochs}", text))
    return path


def _trained(image: str, job_file: Path) -> str:
    line = docker(
        *("run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none"),
        *("--volume", f"{job_file.parent}:/jobs:ro", image),
        *("train", f"/jobs/{job_file.name}", "--workers", "1", "--json"),
    )
    return str(json.loads(line)["parameters_sha256"])
