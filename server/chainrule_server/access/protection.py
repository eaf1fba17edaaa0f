"""The server's options that say who may reach it: TLS, tokens, or --insecure."""

from __future__ import annotations

import argparse
import datetime
import os
from pathlib import Path

from chainrule.security.credentials import (
    CERTIFICATE_VARIABLE,
    CLIENT_CA_VARIABLE,
    INSECURE_VARIABLE,
    KEY_VARIABLE,
    TOKENS_VARIABLE,
    is_set,
)
from chainrule_server.access.authentication import Authentication, TokenFile
from chainrule_server.access.listening import ReloadingCertificate, check_exposure, tls_files


def add_protection_options(parser: argparse.ArgumentParser) -> None:
    """Add them. Each may be in the environment too, where `chainrule server` puts them."""
    for option, variable, text in (
        ("--tls-certificate", CERTIFICATE_VARIABLE, "the server's certificate, PEM"),
        ("--tls-key", KEY_VARIABLE, "its private key, PEM"),
        ("--client-ca", CLIENT_CA_VARIABLE, "whoever connects needs a certificate of this authority"),
        ("--tokens", TOKENS_VARIABLE, "who may call: the lines of 'chainrule token create'"),
    ):
        parser.add_argument(option, type=Path, metavar="FILE", default=os.environ.get(variable) or None, help=text)
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=is_set(os.environ, INSECURE_VARIABLE),
        help="listen beyond this machine without TLS and authentication",
    )


def protection_of(arguments: argparse.Namespace) -> tuple[ReloadingCertificate | None, Authentication | None]:
    """The certificate of the port, None without TLS, and who may call, None: anybody.

    Raises CannotListen, CredentialsError, TokenError."""
    files = tls_files(arguments.tls_certificate, arguments.tls_key, arguments.client_ca)
    tokens = None if arguments.tokens is None else TokenFile(arguments.tokens)
    is_mutual = files is not None and files.client_ca is not None
    is_known = tokens is not None or is_mutual
    check_exposure(arguments.host, has_tls=files is not None, has_authentication=is_known, insecure=arguments.insecure)
    certificate = None if files is None else ReloadingCertificate(files, lambda: datetime.datetime.now(datetime.UTC))
    return certificate, Authentication(tokens) if is_known else None
