"""Pages of a list, the latest thing first: where one begins, and what fits into it.

A page token tells the last thing of the page before, so the next page begins at the right place even where that thing
was deleted meanwhile. It also carries a digest of the filter that it belongs to.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

DEFAULT_PAGE_SIZE = 100
LARGEST_PAGE_SIZE = 1_000
# A stock client takes messages of at most 4 MiB.
PAGE_BYTES = 2 << 20
# A thing's place in a list: which it was of all that were made, and its id. No time: a clock may be put back.
Key = tuple[int, str]
AnyMessage = TypeVar("AnyMessage", bound=Message)


def digest_of(*filters: object) -> str:
    """The digest of what a list is filtered by: JSON values."""
    return hashlib.sha256(json.dumps(filters).encode()).hexdigest()[:16]


def token(last: Key, filter_digest: str) -> str:
    """What asks for the page after this thing."""
    return base64.urlsafe_b64encode(json.dumps([*last, filter_digest]).encode()).decode()


def beginning(page_size: int, page_token: str, filter_digest: str) -> tuple[Key | None, list[tuple[str, str]]]:
    """The thing after which a page begins, None for the first page; and what is wrong with the request."""
    violations = []
    if page_size < 0:
        violations.append(("page_size", f"must be at least 0, got {page_size}"))
    try:
        return _read(page_token, filter_digest), violations
    except ValueError as error:
        violations.append(("page_token", f"{error}; take next_page_token of the page before, and the same filter"))
        return None, violations


def filled(messages: Iterable[AnyMessage], page_size: int) -> list[AnyMessage]:
    """The messages of a page: as many as asked for and as a client takes, at least one where there is any."""
    found: list[AnyMessage] = []
    size_bytes = 0
    for message in messages:
        size_bytes += message.ByteSize()
        if size_bytes > PAGE_BYTES and found:
            break
        found.append(message)
        if len(found) == min(page_size or DEFAULT_PAGE_SIZE, LARGEST_PAGE_SIZE):
            break
    return found


def _read(page_token: str, filter_digest: str) -> Key | None:
    if not page_token:
        return None
    try:
        fields = json.loads(base64.b64decode(page_token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise ValueError("is no page token") from None
    match fields:
        case [int(number), str(identity), str(digest)]:
            if digest != filter_digest:
                raise ValueError("belongs to another filter")
            return number, identity
        case _:
            raise ValueError("is no page token")
