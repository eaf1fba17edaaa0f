"""Every error that a server can answer has a page that says when it comes and what to do."""

from __future__ import annotations

from pathlib import Path

from chainrule_server.grpc_status import CODES

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "errors"


def test_every_error_code_has_a_page_that_names_its_grpc_code() -> None:
    for error, code in CODES.items():
        page = (FOLDER / f"{error.reason}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {error.reason}\n")
        assert f"gRPC code: `{code.name}`." in page.splitlines()[2]
        assert "## When\n" in page
        assert "## What to do\n" in page


def test_no_page_is_left_of_an_error_that_is_gone() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} <= {error.reason for error in CODES}
