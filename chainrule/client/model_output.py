"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from chainrule.atomic_file import replace_with
from chainrule.errors import ModelFileError

# Where the commands put models whose place nobody names.
DEFAULT_FOLDER = Path("models")
# With an id and an ending it is still within the 255 bytes of a file's name.
MOST_NAME_BYTES = 100


def safe_name(text: str) -> str:
    """A part of a file's name, from what came over the network: no separator and nothing that isn't printable, so that
    nobody but the user says in which folder a file is. A name that our own server allows stays as it is."""
    kept = "".join(each if each.isprintable() and each not in "/\\:" else "_" for each in text)
    return kept.encode()[:MOST_NAME_BYTES].decode(errors="ignore") or "_"


def check_output(path: Path) -> None:
    """Raise ModelFileError where a file can't be put at `path`. Makes no folder but `models`."""
    if path.exists() and not path.is_file():
        raise ModelFileError(f"{path} is not a file; name a file for the model")
    if path.parent == DEFAULT_FOLDER:
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise ModelFileError(f"the folder {path.parent} can't be made: {error.strerror}; choose another") from None
    if not path.parent.is_dir():
        # A misspelt folder must not come into being.
        raise ModelFileError(f"{path}: there is no folder {path.parent}; make it or name another")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ModelFileError(f"the folder {path.parent} can't be written to; choose another file for the model")


def replace_file(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file beside `path`, sync it, and give it its name. Raises ModelFileError."""
    check_output(path)
    try:
        # The model gets the permissions that the user's umask gives.
        replace_with(path, parts, mode=0o666)
    except OSError as error:
        raise ModelFileError(f"{path} can't be written: {error.strerror}; choose another file") from None
