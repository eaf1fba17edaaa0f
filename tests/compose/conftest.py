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

# Enough steps for a fault to come in the middle of them.
EPOCHS = 1000


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
    """The four-layer job, in the folder that the containers see as /jobs."""
    text = (EXAMPLES / "four_layer.toml").read_text()
    path = cluster.jobs / "four_layer.toml"
    path.write_text(re.sub(r"(?m)^epochs = .*$", f"epochs = {EPOCHS}", text))
    return path


@pytest.fixture(scope="session")
def undisturbed(image: str, job_file: Path) -> str:
    """The hash of the parameters that one worker, in one container, arrives at."""
    line = docker(
        *("run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none"),
        *("--volume", f"{job_file.parent}:/jobs:ro", image),
        *("train", f"/jobs/{job_file.name}", "--workers", "1", "--json"),
    )
    return str(json.loads(line)["parameters_sha256"])
