"""`chainrule token create`: a token for one person or program, and its line in the server's file."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.failures import wrong_input
from chainrule.cli.options import Json
from chainrule.cli.output import print_json, print_line, print_note
from chainrule.errors import CredentialsError
from chainrule.security.tokens import Holder, TokenError, new_token, read_holders, sha256_of

app = typer.Typer(name="token", help="Make tokens, by which a server knows who calls.", no_args_is_help=True)


@app.command("create")
def create_token(
    name: Annotated[str, typer.Option("--name", help="Whose token it is.")],
    role: Annotated[str, typer.Option("--role", help="client, worker, observer or admin: what it may do.")],
    tokens: Annotated[
        Path | None, typer.Option("--tokens", metavar="FILE", help="The server's file of tokens, to add it to.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a new token, once, and its line for the server's file of tokens."""
    new = new_token(secrets.token_urlsafe)
    try:
        holder = Holder(name, role, sha256_of(new))
    except TokenError as error:
        raise wrong_input("--name" if str(error).startswith("a name") else "--role", str(error)) from None
    if tokens is not None:
        _append(tokens, holder)
    if as_json:
        print_json({"name": name, "role": role, "token": new, "line": holder.line})
        return
    print_line(new)
    if tokens is None:
        print_note(f"the server's --tokens file needs this line: {holder.line}")
    else:
        print_note(f"{tokens} knows {name} as {role}; a running server reads it within a second")
    print_note("this is the only time that the token is shown; keep it in a file for CHAINRULE_TOKEN_FILE")


def _append(path: Path, holder: Holder) -> None:
    """Add a line to the server's file, which is made where it is missing. Raises CredentialsError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "r+", encoding="utf-8") as file:  # noqa: PTH123 - of a descriptor
            fcntl.flock(file, fcntl.LOCK_EX)
            text = file.read()
            line = f"{'' if not text or text.endswith(chr(10)) else chr(10)}{holder.line}\n"
            read_holders(text + line)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except TokenError as error:
        raise CredentialsError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is no text; name a file of tokens") from None
    except OSError as error:
        raise CredentialsError(f"{path} can't be written: {error.strerror}; name another file") from None
