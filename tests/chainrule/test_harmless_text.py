"""Nothing that came over the network turns a terminal's text around, or chooses where a file is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.cli.commands.train import default_model_path
from chainrule.cli.failures import CommandFailed, report
from chainrule.cli.output import print_json, print_line
from chainrule.text import harmless, json_line
from chainrule.v1 import job_pb2

NASTY = "a\x1b[2Jb\u202ec\u2066d\x9be\u2028f\x7fg"


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.lists(st.text()))))
def test_json_has_only_printable_characters_and_the_same_meaning(value: dict[str, object]) -> None:
    line = json_line(value)
    assert line.isprintable()
    assert json.loads(line) == value


@given(st.text())
def test_lines_have_no_control_characters(text: str) -> None:
    assert all(each in "\n\t\xa0" or each.isprintable() for each in harmless(text))


def test_every_way_to_print_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(f"job {NASTY}")
    print_json({NASTY: [NASTY]})
    report(CommandFailed(1, [("", NASTY)], reason="R", fields={"job": NASTY}), as_json=True)
    report(CommandFailed(1, [("", NASTY)]), as_json=False)
    captured = capsys.readouterr()
    for line in (captured.out + captured.err).split("\n"):
        assert line.isprintable(), line


@pytest.mark.parametrize(
    "name", ["../../.bashrc", "/etc/cron.d/x", "..\\..\\x", "a\0b", "a\nb", "é" * 300, "😀" * 300, ""]
)
def test_a_hostile_name_of_a_job_chooses_no_folder(name: str) -> None:
    for job_id in ("0123", name):
        job = job_pb2.Job(job_id=job_id, spec=job_pb2.JobSpec(name=name))
        path = default_model_path(job)
        assert path.parent == Path("models")
        assert path.name.isprintable()
        assert len(path.name.encode()) <= 255


def test_a_name_that_our_server_allows_stays() -> None:
    job = job_pb2.Job(job_id="0123", spec=job_pb2.JobSpec(name="v1.2_" + "x" * 58))
    assert default_model_path(job) == Path("models") / f"v1.2_{'x' * 58}-0123.safetensors"
