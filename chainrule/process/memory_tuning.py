"""How glibc's malloc gives out memory, set so that large messages cost no page faults.

By default glibc takes every block above 128 KB (later up to 32 MB) fresh from the kernel and gives it back when it is
freed: a message of 1 MB then costs 256 page faults each way, for pages that are gone a moment later. Measured, a gRPC
step of large messages takes several times as long with them as without.
"""

from __future__ import annotations

import ctypes
import os

# The numbers of these options in glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8

_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed, for the next large block, in one heap for all threads; say whether it does.

    To be called before grpc and numpy are imported: their threads' heaps, once made, stay. Only glibc can do so; with
    any other C library nothing changes. The process's memory stays at its peak until it ends."""
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return False
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, ValueError, OSError):  # no confstr, no such name, or no mallopt
        return False
    # Every block from the heap, the heap never cut short, and one heap: blocks that one thread frees serve all.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_ARENA_MAX, 1))
    return all([mallopt(option, value) == 1 for option, value in settings])  # noqa: C419 - each is worth having
