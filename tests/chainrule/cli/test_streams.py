"""Standard streams that are full, closed or of another locale: words and exit codes, no error of chainrule itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chainrule.spec.job_file import load_job_file

COMMAND = f"{sys.executable} -P -m chainrule"
TIMEOUT_S = 60.0
FULL = "error: standard output can't be written: No space left on device\n"
CLOSED = "error: standard output can't be written: Bad file descriptor\n"


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What a shell makes of a line, in which CHAINRULE is the command."""
    return subprocess.run(
        ["/bin/sh", "-c", line.replace("CHAINRULE", COMMAND)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize("arguments", ["--help", "--version", "token create", "token create --json", "init --help"])
@pytest.mark.parametrize(("redirection", "said"), [(">/dev/full", FULL), (">&-", CLOSED), (">&- <&-", CLOSED)])
def test_an_output_that_cannot_be_written_is_said_once(
    arguments: str, redirection: str, said: str, tmp_path: Path
) -> None:
    command = arguments.replace("token create", "token create --name ada --role client")
    done = shell(f"CHAINRULE {command} {redirection}", tmp_path)
    assert (done.returncode, done.stderr.decode()) == (1, said)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&- >&-", "2>/dev/full <&-"])
def test_an_error_that_cannot_be_said_keeps_its_exit_code(redirection: str, tmp_path: Path) -> None:
    assert shell(f"CHAINRULE check nosuch.toml {redirection}", tmp_path).returncode == 2


def test_a_failure_that_cannot_be_told_in_json_is_told_on_standard_error(tmp_path: Path) -> None:
    done = shell("CHAINRULE check nosuch.toml --json >/dev/full", tmp_path)
    assert done.returncode == 2
    assert "nosuch.toml: there is no such file" in done.stderr.decode()
    assert done.stderr.decode().endswith(FULL)


def test_no_file_that_is_written_becomes_the_output(tmp_path: Path) -> None:
    # The first file that is opened gets the number of a stream that is closed.
    done = shell("CHAINRULE init rows.csv --json >&- 2>&- <&-", tmp_path)
    assert done.returncode == 2
    (tmp_path / "rows.csv").write_text("a,b,y\n" + "".join(f"{n},{n % 7},{2 * n + n % 7}\n" for n in range(50)))
    done = shell("CHAINRULE init rows.csv --json >&-", tmp_path)
    assert (done.returncode, done.stderr.decode()) == (1, CLOSED)
    assert load_job_file(tmp_path / "rows.toml").data.target == "y"


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1", "C.UTF-8"])
def test_what_goes_to_a_pipe_is_utf_8_in_every_locale(locale: str, tmp_path: Path) -> None:
    # As where Python finds no UTF-8 by itself.
    environment = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    (tmp_path / "job.toml").write_text('"größe" = 1\n', encoding="utf-8")
    done = shell("CHAINRULE check job.toml --json", tmp_path, **environment)
    assert done.returncode == 2
    assert '"größe": unknown key' in json.loads(done.stdout.decode())["error"]["message"]
    assert '"größe": unknown key' in done.stderr.decode()


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    done = shell("(CHAINRULE --help; echo $? >code) | true", tmp_path)
    assert done.stderr == b""
    assert (tmp_path / "code").read_text().strip() in ("0", "141")
