"""A user's modules may be called what they like: ours have names of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.cluster.support import EXAMPLES

pytest.importorskip("sklearn")
pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
OURS = {"chainrule", "chainrule_engine", "chainrule_server", "chainrule_worker"}
TIMEOUT_S = 120
WRONG = "raise SystemExit('the wrong module was imported')\n"
LOCAL_CLUSTER = """
import chainrule
if __name__ == "__main__":
    with chainrule.LocalCluster(workers=2) as client:
        job = client.submit("JOB")
        job.wait(timeout_s=60)
        print(job.result["parameters_sha256"])
"""
ESTIMATOR = """
import numpy
from chainrule.estimators import ChainruleRegressor
if __name__ == "__main__":
    X = numpy.arange(20.0).reshape(10, 2)
    print(ChainruleRegressor(epochs=2).fit(X, X[:, 0]).predict(X).shape)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a user with modules and packages of names that anyone may choose."""
    for name in ("engine", "server", "worker", "client", "data", "jobs", "protos"):
        (tmp_path / f"{name}.py").write_text(WRONG)
    for name in ("server", "engine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(WRONG)
    text = (EXAMPLES / "two_layer.toml").read_text()
    assert "epochs = 100" in text
    (tmp_path / "job.toml").write_text(text.replace("epochs = 100", "epochs = 2"))
    return tmp_path


def run(folder: Path, *command: str, **variables: str) -> str:
    # Python takes modules from the current folder first, unless it is told not to: as users have it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_trains(folder: Path) -> None:
    command = str(Path(sys.executable).with_name("chainrule"))
    assert "succeeded" in run(folder, command, "train", "job.toml", "--workers", "2")


@pytest.mark.parametrize("arguments", [["train", "job.toml", "--workers", "2"], ["graph", "job.toml", "-o", "g.svg"]])
def test_python_m_chainrule_works(folder: Path, arguments: list[str]) -> None:
    assert run(folder, sys.executable, "-m", "chainrule", *arguments)


def test_a_script_with_a_local_cluster_works(folder: Path) -> None:
    (folder / "script.py").write_text(LOCAL_CLUSTER.replace("JOB", "job.toml"))
    assert len(run(folder, sys.executable, "script.py").strip()) == 64


def test_an_estimator_fits_and_predicts(folder: Path) -> None:
    (folder / "script.py").write_text(ESTIMATOR)
    assert run(folder, sys.executable, "script.py") == "(10,)\n"


def test_a_notebook_works(folder: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient runs notebooks")
    import nbformat

    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(LOCAL_CLUSTER.replace("JOB", "job.toml"))]
    notebook.cells += [nbformat.v4.new_code_cell(ESTIMATOR)]
    nbclient.NotebookClient(notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": str(folder)}}).execute()
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    assert len(said[0].split()[-1]) == 64
    assert said[1].endswith("(10,)\n")


def test_an_application_whose_package_is_called_server_uses_the_installed_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=TIMEOUT_S)
    (wheel,) = tmp_path.glob("chainrule-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as content:
        names = {name.split("/")[0] for name in content.namelist()}
        content.extractall(site)
    assert {name for name in names if not name.endswith(".dist-info")} == OURS

    application = tmp_path / "application"
    package = application / "server"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text("EPOCHS = 2\n")
    (package / "__main__.py").write_text("from server.settings import EPOCHS\n" + ESTIMATOR + "    print(EPOCHS)\n")
    said = run(application, sys.executable, "-m", "server", PYTHONPATH=str(site))
    assert said == "(10,)\n2\n"
    where = "import chainrule_server, chainrule; print(chainrule_server.__file__, chainrule.__file__)"
    assert run(application, sys.executable, "-c", where, PYTHONPATH=str(site)).count(str(site)) == 2
