"""Counts the vectors that this process holds."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np


@contextlib.contextmanager
def counting(size: int) -> Iterator[Callable[[], int]]:
    """How many vectors of `size` float32 have been allocated since the block began, and not been freed."""
    numpy_only = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)

    def count() -> int:
        gc.collect()
        traces = tracemalloc.take_snapshot().filter_traces([numpy_only]).traces
        return sum(trace.size == 4 * size for trace in traces)

    # What is there already is never looked through again: with PyTorch loaded each count would take seconds.
    gc.collect()
    gc.freeze()
    tracemalloc.start()
    try:
        yield count
    finally:
        tracemalloc.stop()
