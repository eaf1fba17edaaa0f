"""Named connections: which server, and who we are to it, kept in a file so that a command needs one word.

    # ~/.config/chainrule/config.toml
    default = "lab"

    [connections.lab]
    server = "trainer.example:50051"
    tls_ca = "lab/ca.pem"            # relative to this file
    token_file = "lab/token"

A connection says what the environment variables CHAINRULE_SERVER, CHAINRULE_TLS_CA and so on would. A token itself has
no place here: a file that is shown around must not hold one.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from chainrule.errors import ConnectionFileError
from chainrule.security.credentials import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    PUBLIC_AUTHORITIES,
    TOKEN_FILE_VARIABLE,
    TOKEN_VARIABLE,
)

SERVER_VARIABLE = "CHAINRULE_SERVER"
CONNECTION_VARIABLE = "CHAINRULE_CONNECTION"
CONFIG_VARIABLE = "CHAINRULE_CONFIG"
MAX_FILE_BYTES = 1 << 20
KEYS = {
    "server": SERVER_VARIABLE,
    "tls_ca": CA_VARIABLE,
    "tls_certificate": CERTIFICATE_VARIABLE,
    "tls_key": KEY_VARIABLE,
    "token_file": TOKEN_FILE_VARIABLE,
}
FILE_KEYS = ("tls_ca", "tls_certificate", "tls_key", "token_file")


@dataclass(frozen=True)
class NamedConnection:
    """values: by the keys of the file, those of files as whole paths."""

    name: str
    values: Mapping[str, str]

    def apply(self, environment: MutableMapping[str, str]) -> None:
        """Say it in the environment, in place of all that is said there of a server.

        What belongs together changes together: a connection's server gets no token of another."""
        for variable in (*KEYS.values(), TOKEN_VARIABLE):
            environment.pop(variable, None)
        environment.update({KEYS[key]: value for key, value in self.values.items()})


@dataclass(frozen=True)
class ConnectionFile:
    """default: the name of the connection that is used where none is named; None where there is no such."""

    path: Path
    connections: Mapping[str, NamedConnection]
    default: str | None = None

    @classmethod
    def read(cls, path: Path) -> ConnectionFile:
        """The connections of a file; none where there is no file. Raises ConnectionFileError."""
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return cls(path, {})
        except OSError as error:
            raise ConnectionFileError(f"{path} can't be read: {error.strerror}") from None
        if len(content) > MAX_FILE_BYTES:
            raise ConnectionFileError(f"{path} has more than {MAX_FILE_BYTES} bytes, so it is no file of connections")
        try:
            table = tomllib.loads(content.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConnectionFileError(f"{path} is no TOML: {error}") from None
        _check_keys(table, ("default", "connections"), path, "")
        entries = table.get("connections", {})
        if not isinstance(entries, dict):
            raise ConnectionFileError(f"{path}: connections: must be tables such as [connections.lab]")
        connections = {name: _connection(name, entry, path) for name, entry in entries.items()}
        default = table.get("default")
        if default is not None and default not in connections:
            raise ConnectionFileError(f"{path}: default: {_unknown(default, connections)}")
        return cls(path, connections, default)

    def find(self, name: str) -> NamedConnection:
        """The connection of that name. Raises ConnectionFileError."""
        if name not in self.connections:
            raise ConnectionFileError(f"{self.path}: {_unknown(name, self.connections)}")
        return self.connections[name]


def config_path(environment: Mapping[str, str], home: Path) -> Path:
    """Where the file is: CHAINRULE_CONFIG, else chainrule/config.toml in XDG_CONFIG_HOME or ~/.config."""
    given = environment.get(CONFIG_VARIABLE)
    if given:
        return Path(given)
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "chainrule" / "config.toml"


def use_connection(environment: MutableMapping[str, str], home: Path, name: str | None) -> None:
    """Say in the environment what a connection says: the named one, else CHAINRULE_CONNECTION's, else the default.

    The default gives way to CHAINRULE_SERVER; a named one and CHAINRULE_SERVER exclude each other, unless `name` comes
    from the command line, which says last what holds. Raises ConnectionFileError."""
    file = ConnectionFile.read(config_path(environment, home))
    variable = environment.get(CONNECTION_VARIABLE)
    if name:
        file.find(name).apply(environment)
    elif variable and environment.get(SERVER_VARIABLE):
        raise ConnectionFileError(f"there are {CONNECTION_VARIABLE} and {SERVER_VARIABLE}; set one of them")
    elif variable:
        file.find(variable).apply(environment)
    elif file.default is not None and not environment.get(SERVER_VARIABLE):
        file.find(file.default).apply(environment)


def _connection(name: str, entry: object, path: Path) -> NamedConnection:
    where = f"connections.{name}"
    if not isinstance(entry, dict):
        raise ConnectionFileError(f"{path}: {where}: must be a table, [{where}]")
    _check_keys(entry, tuple(KEYS), path, f"{where}.")
    for key, value in entry.items():
        if not isinstance(value, str) or not value:
            raise ConnectionFileError(f"{path}: {where}.{key}: must be a string")
    if "server" not in entry:
        raise ConnectionFileError(f'{path}: {where}: has no server; add server = "HOST:PORT"')
    return NamedConnection(name, {key: _whole(key, value, path.parent) for key, value in entry.items()})


def _whole(key: str, value: str, folder: Path) -> str:
    if key not in FILE_KEYS or (key == "tls_ca" and value == PUBLIC_AUTHORITIES):
        return value
    return str(folder / Path(value).expanduser())


def _check_keys(table: Mapping[str, object], known: tuple[str, ...], path: Path, prefix: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
            raise ConnectionFileError(f"{path}: {prefix}{key}: unknown key; {hint}")


def _unknown(name: object, connections: Mapping[str, NamedConnection]) -> str:
    near = difflib.get_close_matches(str(name), connections, n=1)
    if near:
        return f"there is no connection {name!r}; did you mean {near[0]!r}?"
    return f'there is no connection {name!r}; add [connections.NAME] with server = "HOST:PORT"'
