"""Which chainrule this is."""

from __future__ import annotations


def installed_version() -> str:
    """The version as it was installed; empty where it wasn't."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("chainrule")
    except PackageNotFoundError:
        return ""
