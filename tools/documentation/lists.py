"""Pages that list other pages: the errors, and the decisions."""

from __future__ import annotations

from pathlib import Path


def errors_page(docs: Path) -> str:
    """Every error by its reason, with the first sentence of its page."""
    lines = [
        "# Errors",
        "",
        "A call that fails has a gRPC code and, in `google.rpc.ErrorInfo`, one of these reasons; commands with",
        "`--json` print it as `reason`. Where fields are wrong, `google.rpc.BadRequest` names each of them.",
        "",
        "| reason | |",
        "|---|---|",
    ]
    for page in sorted((docs / "errors").glob("*.md")):
        lines.append(f"| [{page.stem}]({page.name}) | {page.read_text(encoding='utf-8').splitlines()[2]} |")
    return "\n".join(lines) + "\n"


def decisions_page(docs: Path) -> str:
    """Every decision by its title."""
    lines = ["# Decisions", "", "What was weighed, and why it is as it is.", ""]
    for page in sorted((docs / "decisions").glob("*.md")):
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({page.name})")
    return "\n".join(lines) + "\n"
