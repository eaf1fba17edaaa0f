"""The command line as a page: what `--help` says of every command."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from chainrule.cli.app import COMMANDS, app, command_of

WIDTH = 110


def commands_page() -> str:
    """The page of all commands, in the order of `chainrule --help`."""
    root = typer.main.get_command(app)
    lines = [
        "# Commands",
        "",
        "What `chainrule COMMAND --help` says, of every command.",
        "",
        str(root.epilog or ""),
        "",
    ]
    for name, command in _commands({name: command_of(name) for name in COMMANDS}, "chainrule"):
        context = command.context_class(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
        lines += [f"## {name}", "", "```text", inspect.cleandoc(command.get_help(context)), "```", ""]
    return "\n".join(lines)


def _commands(commands: dict[str, Any], group: str) -> Iterator[tuple[str, Any]]:
    """Every command of a group and below it, with its whole name."""
    for word, child in commands.items():
        name = f"{group} {word}"
        if not child.hidden:
            yield from _commands(child.commands, name) if hasattr(child, "commands") else [(name, child)]
