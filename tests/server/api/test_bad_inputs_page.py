"""docs/bad-inputs.md: what is tried against each method, and what a server answers."""

from __future__ import annotations

from pathlib import Path

from tests.server.bad_inputs import BAD_INPUTS, METHODS, table

PAGE = Path(__file__).resolve().parents[3] / "docs/bad-inputs.md"


def test_every_method_of_the_protos_is_tried() -> None:
    assert {bad.method for bad in BAD_INPUTS} == set(METHODS)


def test_the_page_tells_what_a_server_answers(tmp_path: Path) -> None:
    """Where answers have changed: `python -m tests.server.bad_inputs` prints the table."""
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("|")] == table(tmp_path)
