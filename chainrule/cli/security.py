"""The options that say who calls and whom a server lets in, which every command that talks to a server takes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from chainrule.security.credentials import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    CLIENT_CA_VARIABLE,
    INSECURE_VARIABLE,
    KEY_VARIABLE,
    TOKEN_FILE_VARIABLE,
    TOKENS_VARIABLE,
)


def add_security_options(command: Any) -> None:
    """Give every command with an option --server those that say who calls, and the server those that protect it."""
    for name, each in getattr(command, "commands", {}).items():
        if name == "server":
            each.params += _parameters(_protection)
        elif any("--server" in parameter.opts for parameter in each.params):
            each.params += _parameters(_credentials)
        add_security_options(each)


@functools.cache
def _parameters(declaration: Callable[..., None]) -> list[Any]:
    # Made once and shared by the commands: made anew for each they took half the time of `chainrule --help`.
    app = typer.Typer(add_completion=False)
    app.command(add_help_option=False)(declaration)
    parameters: list[Any] = typer.main.get_command(app).params
    for parameter in parameters:
        parameter.expose_value = False
    return parameters


def _into(variable: str) -> Any:
    """What puts an option's value into the environment, so that a worker, which replaces the process, has it too."""

    def set_variable(value: str | bool | None) -> str | bool | None:
        if value is not None and value is not False:
            os.environ[variable] = "1" if value is True else str(value)
        return value

    return set_variable


def _file(variable: str, text: str) -> Any:
    """An option that names a file. text: its help."""
    return typer.Option(metavar="FILE", help=text, callback=_into(variable))


def _insecure(text: str) -> Any:
    """The option --insecure. text: its help, since client and server do without something else."""
    return typer.Option("--insecure", help=text, callback=_into(INSECURE_VARIABLE))


def _connect(name: str | None) -> str | None:
    # With TOML and URLs, which asking for help doesn't need.
    from chainrule.client.named_connections import use_connection

    # Eager, so before the other options: what they say holds.
    use_connection(os.environ, Path.home(), name)
    return name


def _credentials(
    connection: Annotated[
        str | None,
        typer.Option(
            "--connection",
            metavar="NAME",
            help="A server named in ~/.config/chainrule/config.toml. CHAINRULE_CONNECTION.",
            is_eager=True,
            callback=_connect,
        ),
    ] = None,
    tls_ca: Annotated[
        str | None,
        _file(
            CA_VARIABLE, "The authority of the server's certificate, PEM, or 'public'; else no TLS. CHAINRULE_TLS_CA."
        ),
    ] = None,
    tls_certificate: Annotated[
        str | None,
        _file(CERTIFICATE_VARIABLE, "The certificate to show, where the server wants one. CHAINRULE_TLS_CERTIFICATE."),
    ] = None,
    tls_key: Annotated[
        str | None,
        _file(KEY_VARIABLE, "Its private key. CHAINRULE_TLS_KEY."),
    ] = None,
    token_file: Annotated[
        str | None,
        _file(
            TOKEN_FILE_VARIABLE,
            "The file that holds the token. CHAINRULE_TOKEN_FILE, or the token itself in CHAINRULE_TOKEN.",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        _insecure("Send the token without TLS to another machine. CHAINRULE_INSECURE."),
    ] = False,
) -> None:
    """The options of whoever connects to a server. It is never called: the environment holds what they say."""


def _protection(
    tls_certificate: Annotated[
        str | None,
        _file(CERTIFICATE_VARIABLE, "The server's certificate, PEM; else no TLS. CHAINRULE_TLS_CERTIFICATE."),
    ] = None,
    tls_key: Annotated[
        str | None,
        _file(KEY_VARIABLE, "Its private key. CHAINRULE_TLS_KEY."),
    ] = None,
    client_ca: Annotated[
        str | None,
        _file(
            CLIENT_CA_VARIABLE,
            "Mutual TLS: whoever connects needs a certificate of this authority. CHAINRULE_CLIENT_CA.",
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        _file(TOKENS_VARIABLE, "Who may call: the lines of 'chainrule token create'. CHAINRULE_TOKENS."),
    ] = None,
    insecure: Annotated[
        bool,
        _insecure("Listen beyond this machine without TLS and authentication. CHAINRULE_INSECURE."),
    ] = False,
) -> None:
    """The options of a server; the rest as above."""
