"""Where a program connects to, and as whom: from the arguments of `connect`, blocking and asyncio alike."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

from chainrule.client.channel import DEFAULT_ADDRESS
from chainrule.client.named_connections import SERVER_VARIABLE, use_connection
from chainrule.errors import AddressError, CredentialsError
from chainrule.security.credentials import PUBLIC_AUTHORITIES, Credentials, Tls


class Destination(NamedTuple):
    """address: as it was given; who connects checks it."""

    address: str
    credentials: Credentials


def destination(
    address: str | None = None,
    *,
    connection: str | None = None,
    token: str | None = None,
    tls: Tls | str | os.PathLike[str] | None = None,
    credentials: Credentials | None = None,
) -> Destination:
    """The server at HOST:PORT, or that of a named connection; neither: the one that 'chainrule server' starts here.

    connection: a name of ~/.config/chainrule/config.toml, whose TLS and token hold then. tls: a `Tls`, the path of the
    authority's PEM file, or "public". token: what 'chainrule token create' printed. What isn't given is what the
    connection says, or without one the environment. credentials: all of it at once.
    Raises AddressError, CredentialsError, ConnectionFileError."""
    if address is not None and connection is not None:
        raise AddressError(f"there are the address {address!r} and the connection {connection!r}; give one of them")
    if credentials is not None and (token is not None or tls is not None):
        raise CredentialsError("there are credentials, and token or tls as well; put them all into the credentials")
    environment = dict(os.environ)
    if connection is not None:
        if not connection:
            raise AddressError("the name of the connection is empty; name one of ~/.config/chainrule/config.toml")
        use_connection(environment, Path.home(), connection)
        address = environment[SERVER_VARIABLE]
    if credentials is None:
        credentials = Credentials.from_environment(environment)
        if token is not None:
            credentials = dataclasses.replace(credentials, token=token)
        if tls is not None:
            credentials = dataclasses.replace(credentials, tls=_tls(tls))
    return Destination(DEFAULT_ADDRESS if address is None else address, credentials)


def _tls(given: Tls | str | os.PathLike[str]) -> Tls:
    if isinstance(given, Tls):
        return given
    return Tls() if given == PUBLIC_AUTHORITIES else Tls(ca=Path(given))
