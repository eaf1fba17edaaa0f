"""The labels of a job: what they may be, and which jobs have some of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_LABELS = 64
MAX_NAME = 63
MAX_DOMAIN = 253
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")


def violations(labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is wrong with labels, as (path, message)."""
    found = []
    if len(labels) > MAX_LABELS:
        found.append(("labels", f"must be at most {MAX_LABELS}, got {len(labels)}"))
    for key, value in sorted(labels.items())[: MAX_LABELS + 1]:
        domain, slash, name = key.rpartition("/")
        path = f"labels.{key[:80]}"
        if not _is_name(name) or (slash and not (len(domain) <= MAX_DOMAIN and DOMAIN.fullmatch(domain))):
            message = "is no key: a name of at most 63 letters, digits, '-', '_' and '.', which begins and ends with a "
            found.append((path, message + "letter or digit, after a domain and '/' if you like"))
        if value and not _is_name(value):
            message = "must be empty or a name of at most 63 letters, digits, '-', '_' and '.', which begins and ends "
            found.append((path, f"{message}with a letter or digit, got {value[:80]!r}"))
    return found


def has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether all of the wanted labels are among these."""
    return all(key in labels and labels[key] == value for key, value in wanted.items())


def _is_name(text: str) -> bool:
    return len(text) <= MAX_NAME and NAME.fullmatch(text) is not None
