"""A home that an older version wrote is opened as it is: nothing that was acknowledged is lost by an update.

`files/home-0.1.0.tar.gz` was written by commit 2fd254e, before the rooms of the code had their names: a data set, a job
that has ended, and one that ran when the server was killed.
"""

from __future__ import annotations

import hashlib
import tarfile
import time
from pathlib import Path

import pytest

from chainrule import connect
from tests.cluster.support import RestartableServer

pytestmark = pytest.mark.cluster
HOME = Path(__file__).with_name("files") / "home-0.1.0.tar.gz"
ENDED, RUNNING = "652d10ba0b67", "da132dc7c241"
PARAMETERS_SHA256 = "918c6fdd8ede835c6e74a0b05fc48f4a2985cfe95b76f190bdf32cddd25e1e90"
DATA_SHA256 = "ebdc0d70082259f0d5a20b50765aa167e8cc2d235dcfa63fae3f411df878d1b4"
LAST_CHECKPOINT = 9561
TIMEOUT_S = 60.0
HOUSE = {"area_m2": 100.0, "rooms": 4, "built": 1987, "quarter": "hill", "garden": "true", "walk_min": 5.0}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with tarfile.open(HOME) as content:
        content.extractall(tmp_path, filter="data")
    return tmp_path / "home"


def test_a_home_of_version_0_1_0_keeps_its_model_its_data_and_its_running_job(home: Path, tmp_path: Path) -> None:
    with (
        RestartableServer(home, workers=1) as server,
        connect(server.address) as client,
    ):
        ended = client.job(ENDED)
        assert (ended.state, ended.result["parameters_sha256"]) == ("SUCCEEDED", PARAMETERS_SHA256)
        model = ended.model()
        stored = hashlib.sha256((home / "models" / f"{ENDED}.safetensors").read_bytes()).hexdigest()
        saved = model.save(tmp_path / "model.safetensors")
        assert hashlib.sha256(saved.read_bytes()).hexdigest() == stored
        (price,) = model.predict([HOUSE])
        assert 200 < price < 1500
        assert [(*each.names, each.sha256) for each in client.list_data_sets()] == [("houses.csv", DATA_SHA256)]
        assert len(ended.metrics["loss"]) == 800

        running = client.job(RUNNING)
        deadline = time.monotonic() + TIMEOUT_S
        while running.refresh().message.progress.step <= LAST_CHECKPOINT + 100:
            assert time.monotonic() < deadline, running.message
            time.sleep(0.1)
        events = next(client.watch_updates(RUNNING, after_event=0)).events
        assert [event.resumed.step for event in events if event.HasField("resumed")] == [LAST_CHECKPOINT]
        running.cancel()
