"""The endings of names that tell how a file of rows is read, in small or capital letters."""

from __future__ import annotations

BINARY_ENDINGS = (".parquet", ".arrow", ".feather", ".npz", ".npy")
ENDINGS = (".csv", ".tsv", ".tab", *BINARY_ENDINGS)
# What some programs call a .tsv file.
SAME_AS = {".tab": ".tsv"}


def ending_of(name: str) -> str:
    """The ending that tells how a file is read, in small letters; '' for another."""
    found = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
    return SAME_AS.get(found, found)
