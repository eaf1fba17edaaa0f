"""Who a client or a worker is to the server: its TLS files and its token.

They come from files and from the environment, never from a command's arguments, which every user of a machine can read.
This module reads no file and knows nothing of gRPC; `chainrule.security.secure_channel` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chainrule.address import is_local
from chainrule.errors import CredentialsError

CA_VARIABLE = "CHAINRULE_TLS_CA"
CERTIFICATE_VARIABLE = "CHAINRULE_TLS_CERTIFICATE"
KEY_VARIABLE = "CHAINRULE_TLS_KEY"
TOKEN_VARIABLE = "CHAINRULE_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE_VARIABLE = "CHAINRULE_TOKEN_FILE"  # noqa: S105
INSECURE_VARIABLE = "CHAINRULE_INSECURE"
# Of a server only: the authority of clients' certificates, and the file of those who have a token.
CLIENT_CA_VARIABLE = "CHAINRULE_CLIENT_CA"
TOKENS_VARIABLE = "CHAINRULE_TOKENS"
VARIABLES = (
    CLIENT_CA_VARIABLE,
    TOKENS_VARIABLE,
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    TOKEN_VARIABLE,
    TOKEN_FILE_VARIABLE,
    INSECURE_VARIABLE,
)
# In place of a file: the authorities that come with gRPC, those of the public web.
PUBLIC_AUTHORITIES = "public"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")


@dataclass(frozen=True)
class Tls:
    """TLS to the server. ca: the PEM file of the authority that its certificate must come from; None: the public ones.

    certificate, key: PEM files by which the client shows who it is, both or none (mutual TLS)."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            given, missing = ("key", "certificate") if self.certificate is None else ("certificate", "key")
            raise CredentialsError(f"tls: a {given} without its {missing}; give both files or none")


@dataclass(frozen=True)
class Credentials:
    """tls: None for a connection in the clear. token: what `chainrule token create` printed.

    insecure: the token may go over a network in the clear, because something else, such as a tunnel, protects it."""

    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            # Without the token itself: the message may end up in a log.
            raise CredentialsError("the token is none; take the line that 'chainrule token create' printed, whole")

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Credentials:
        """What CHAINRULE_TLS_CA, _TLS_CERTIFICATE, _TLS_KEY, CHAINRULE_TOKEN or _TOKEN_FILE say.

        Raises CredentialsError where they don't fit together or the token's file can't be read."""
        return cls(
            tls=_tls(variables),
            token=_token(variables),
            insecure=is_set(variables, INSECURE_VARIABLE),
        )

    def check(self, address: str) -> None:
        """Raise CredentialsError where the token would go over a network in the clear."""
        if self.token is not None and self.tls is None and not self.insecure and not is_local(address):
            raise CredentialsError(
                f"the token would go to {address} in the clear; use TLS (--tls-ca or {CA_VARIABLE}), or say --insecure "
                "where the network itself is protected"
            )


def _tls(variables: Mapping[str, str]) -> Tls | None:
    ca, certificate, key = (variables.get(name) or None for name in (CA_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE))
    if ca is None:
        if certificate is not None or key is not None:
            raise CredentialsError(
                f"there is a client's certificate, but no {CA_VARIABLE} (--tls-ca): name the server's authority, "
                f"or say {PUBLIC_AUTHORITIES!r}"
            )
        return None
    return Tls(
        ca=None if ca == PUBLIC_AUTHORITIES else Path(ca),
        certificate=None if certificate is None else Path(certificate),
        key=None if key is None else Path(key),
    )


def _token(variables: Mapping[str, str]) -> str | None:
    token, file = variables.get(TOKEN_VARIABLE) or None, variables.get(TOKEN_FILE_VARIABLE) or None
    if token is not None and file is not None:
        raise CredentialsError(f"there are {TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE} (--token-file); give one of them")
    if file is None:
        return None if token is None else token.strip()
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CredentialsError(f"the token's file {file} can't be read: {reason}") from None


def is_set(variables: Mapping[str, str], name: str) -> bool:
    """Whether a variable of the environment switches something on."""
    return variables.get(name, "").lower() not in ("", "0", "false", "no")
