"""Tokens: what a caller shows, and the line of the server's file by which it is known.

The server keeps only a token's SHA-256. A slow hash, as for passwords, would add nothing: a token is 256 random bits,
which nobody can guess, and one is checked with every call.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

ROLES = ("client", "worker", "observer", "admin")
# So that a token is recognized where it should not be: in a repository, a log, a chat.
PREFIX = "chainrule_"
TOKEN_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class TokenError(ValueError):
    """A name, a role or a line that isn't one."""


@dataclass(frozen=True)
class Holder:
    """Whose token it is, and what it may do."""

    name: str
    role: str
    sha256: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise TokenError(f"a name has letters, digits and . _ @ - and at most 64 of them, got {self.name[:80]!r}")
        if self.role not in ROLES:
            raise TokenError(f"a role is one of {', '.join(ROLES)}, got {self.role[:40]!r}")
        if not _SHA256.fullmatch(self.sha256):
            raise TokenError("a SHA-256 has 64 digits of 0-9 and a-f")

    @property
    def line(self) -> str:
        """Its line in the server's file, without the end of line."""
        return f"{self.name} {self.role} {self.sha256}"


def new_token(random_text: Callable[[int], str]) -> str:
    """A new token. random_text: secrets.token_urlsafe."""
    return PREFIX + random_text(TOKEN_BYTES)


def sha256_of(token: str) -> str:
    """What the server keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_holders(text: str) -> tuple[Holder, ...]:
    """The holders of a file: a line `NAME ROLE SHA256` each; '#' begins a remark. Raises TokenError with the line."""
    holders: list[Holder] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3:
            raise TokenError(f"line {number}: must be 'NAME ROLE SHA256', as 'chainrule token create' prints it")
        try:
            holder = Holder(*words)
        except TokenError as error:
            raise TokenError(f"line {number}: {error}") from None
        for other in holders:
            if holder.name == other.name or holder.sha256 == other.sha256:
                raise TokenError(
                    f"line {number}: the name or the token of {other.name!r} is there already; take another name, or "
                    "take out the line of the token that is no longer to hold"
                )
        holders.append(holder)
    return tuple(holders)


def holder_of(token: str, holders: Iterable[Holder]) -> Holder | None:
    """Whose token it is; None: nobody's. The time that it takes tells nothing of any token."""
    sha256 = sha256_of(token).encode()
    found = None
    for holder in holders:
        if hmac.compare_digest(holder.sha256.encode(), sha256):
            found = holder
    return found
