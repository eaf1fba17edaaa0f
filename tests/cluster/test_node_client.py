"""Stock clients of another language drive the service: Node's @grpc/grpc-js, from the protos or by reflection alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import google.rpc
import numpy as np
import pytest
from google.protobuf import json_format

from chainrule.spec.job_file import load_job_file
from chainrule_server.data import data_set
from tests.cluster.support import EXAMPLES, RestartableServer

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "tests" / "node"
INSTALL_TIMEOUT_S = 120
RUN_TIMEOUT_S = 120

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client and the packages that it needs."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "client.js"):
        shutil.copy(NODE / name, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm didn't install the client's packages within {INSTALL_TIMEOUT_S} s")
    if done.returncode:
        pytest.skip(f"npm can't install the client's packages: {done.stderr.strip()[-200:]}")
    return folder


def proto_folders() -> list[str]:
    """Where our protos are, and Google's that they import."""
    return [str(ROOT / "protos"), str(Path(next(iter(google.rpc.__path__))).parents[1])]


@pytest.mark.parametrize("how", ["reflection", "protos"])
def test_a_stock_node_client_submits_watches_and_predicts(
    node_folder: Path, marker: str, tmp_path: Path, how: str
) -> None:
    spec = load_job_file(EXAMPLES / "two_layer.toml")
    spec.training.epochs = 3
    rows = data_set.load("sklearn:diabetes").features[:5].tolist()
    question = {"spec": json_format.MessageToDict(spec, preserving_proto_field_name=True), "rows": rows}
    with RestartableServer(tmp_path / "home", workers=1) as server:
        command = ["node", "client.js", server.address, how, *(proto_folders() if how == "protos" else [])]
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        done = subprocess.run(
            command,
            input=json.dumps(question),
            cwd=node_folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
    if how == "reflection":
        assert {"chainrule.v1.JobService", "chainrule.v1.ModelService", "grpc.health.v1.Health"} <= {*found["services"]}
        assert found["health"] == "SERVING"
    assert found["refused"]["code"] == "INVALID_ARGUMENT"
    assert "training.epochs" in found["refused"]["details"]
    assert found["estimate"]["parameter_count"] == 176
    assert found["states"][-1] == "JOB_STATE_SUCCEEDED"
    assert found["result"]["parameter_count"] == 176
    assert found["listed"] == [True]
    assert found["paused"] == [f"JOB_STATE_{name}" for name in ("PAUSED", "PAUSED", "QUEUED", "CANCELLED")]
    assert len(found["predictions"]) == 5
    assert np.isfinite(found["predictions"]).all()
    assert found["last_node"]["backward"]["values"] == [1.0]
    assert found["model_bytes"] > 4 * 176
