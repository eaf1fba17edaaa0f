"""Random numbers that any process can draw again at any time, in any order.

Every draw has its own counter-based generator, keyed by what the draw is for, so it depends neither on who draws nor on
what was drawn before. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox).
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np


def generator(domain: str, *, seed: int, words: tuple[int | str, ...] = ()) -> np.random.Generator:
    """A generator for one purpose: `domain` says which, `words` what for (epoch and shard; a parameter's name).

    The two-word Philox key is the start of the SHA-256 of all of them, so that no two purposes share a stream."""
    digest = hashlib.sha256()
    for word in (domain, seed, *words):
        text = str(word).encode()
        # The length keeps ("a", "bc") and ("ab", "c") apart.
        digest.update(struct.pack("<cQ", b"i" if isinstance(word, int) else b"s", len(text)) + text)
    key = np.frombuffer(digest.digest()[:16], dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))
