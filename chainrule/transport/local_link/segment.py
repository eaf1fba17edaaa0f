"""Memory that two processes map: made by the server, without a name, with its space taken at once."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import stat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.process.available_memory import available_memory_bytes

# Kernel constants that Python's fcntl names only from 3.11 or 3.13 on; see fcntl(2), "File Sealing".
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEAL_SHRINK, _SEAL_GROW, _SEAL_FUTURE_WRITE = 0x2, 0x4, 0x10
# Left to everything else on the machine when a segment is made.
RESERVE_BYTES = 64 << 20


class SegmentError(Exception):
    """There is no room for a segment, or what was handed over is none. The message says what to do."""


class Segment:
    """A piece of shared memory, mapped into this process. Its views keep it mapped for as long as they live."""

    def __init__(self, descriptor: int, size_bytes: int, *, writable: bool, populate: bool = True) -> None:
        """Take over a descriptor that is known to be right; use `create` or `open`."""
        # Ours only once it is mapped: until then whoever gave it closes it.
        self.descriptor = -1
        self.size_bytes = size_bytes
        self.writable = writable
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        # Populated: the first step must not wait for a page at a time.
        flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if populate else 0)
        self._map = mmap.mmap(descriptor, size_bytes, flags=flags, prot=protection)
        self.descriptor = descriptor

    @classmethod
    def create(cls, size_bytes: int, *, name: str) -> Segment:
        """A new segment of zeros, writable. name: for /proc/PID/maps only; two segments may have the same.

        Raises SegmentError where there is no room for it."""
        if size_bytes < 1:
            raise SegmentError(f"a segment has at least 1 byte, not {size_bytes}")
        available_bytes = available_memory_bytes()
        if available_bytes is not None and size_bytes + RESERVE_BYTES > available_bytes:
            free_bytes = max(0, available_bytes - RESERVE_BYTES)
            raise SegmentError(
                f"shared memory of {size_bytes} bytes is wanted, but only {free_bytes} are free; use a smaller "
                "model or fewer workers on this machine, or raise the container's memory limit"
            )
        try:
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise SegmentError(f"the system makes no shared memory: {error.strerror}") from error
        try:
            # Space that is only promised ends in SIGBUS when it is used.
            os.posix_fallocate(descriptor, 0, size_bytes)
            fcntl.fcntl(descriptor, _ADD_SEALS, _SEAL_SHRINK | _SEAL_GROW)
            return cls(descriptor, size_bytes, writable=True)
        except OSError as error:
            os.close(descriptor)
            raise SegmentError(f"shared memory of {size_bytes} bytes can't be had: {error.strerror}") from error

    @classmethod
    def open(cls, descriptor: int, size_bytes: int, *, writable: bool) -> Segment:
        """A segment that another process made and handed over. The descriptor stays the caller's.

        Raises SegmentError where it has another size, could be cut short, or can't be mapped."""
        try:
            actual_bytes = os.fstat(descriptor).st_size
            seals = fcntl.fcntl(descriptor, _GET_SEALS)
        except OSError as error:
            raise SegmentError(f"descriptor {descriptor} is no shared memory: {error.strerror}") from error
        if actual_bytes != size_bytes or not seals & _SEAL_SHRINK:
            raise SegmentError(
                f"shared memory of {size_bytes} bytes was promised, but {actual_bytes} came, or unsealed"
            )
        own = os.dup(descriptor)
        try:
            return cls(own, size_bytes, writable=writable)
        except OSError as error:
            os.close(own)
            raise SegmentError(f"shared memory can't be mapped: {error.strerror}") from error

    @classmethod
    def open_file(cls, descriptor: int, size_bytes: int) -> Segment:
        """A file that another process wrote and handed over, to be read; only what is looked at comes into memory.

        The descriptor stays the caller's. Raises SegmentError where it is no file of that size, or can't be mapped."""
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size_bytes:
                raise SegmentError(f"a file of {size_bytes} bytes was promised, but one of {status.st_size} came")
            own = os.dup(descriptor)
        except OSError as error:
            raise SegmentError(f"descriptor {descriptor} is no file: {error.strerror}") from error
        try:
            segment = cls(own, size_bytes, writable=False, populate=False)
        except OSError as error:
            os.close(own)
            raise SegmentError(f"the file can't be mapped: {error.strerror}") from error
        if hasattr(mmap, "MADV_RANDOM"):
            # Rows are taken here and there: without this, 128 KiB would be read for each that isn't in memory.
            segment._map.madvise(mmap.MADV_RANDOM)
        return segment

    def seal_read_only(self) -> None:
        """From now on only this process's mapping can write; whoever maps the segment later can only read it.

        Raises SegmentError where the system can't do that (Linux can from 5.1 on)."""
        try:
            fcntl.fcntl(self.descriptor, _ADD_SEALS, _SEAL_FUTURE_WRITE)
        except OSError as error:
            raise SegmentError(f"the system can't make shared memory read-only: {error.strerror}") from error

    def vector(self, offset_bytes: int, size: int) -> NDArray[np.float32]:
        """A view of `size` float32 elements. Raises SegmentError where they don't lie in the segment."""
        return self.array(offset_bytes, (size,), np.dtype(np.float32))

    def array(self, offset_bytes: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
        """A view of an array of that kind. Raises SegmentError where it doesn't lie in the segment."""
        size, item_bytes = math.prod(shape), kind.itemsize
        is_there = 0 <= offset_bytes <= self.size_bytes - item_bytes * size
        if min(shape) < 0 or offset_bytes % item_bytes or not is_there:
            raise SegmentError(f"{size} elements at byte {offset_bytes} don't lie in {self.size_bytes} bytes")
        return np.frombuffer(self._map, dtype=kind, count=size, offset=offset_bytes).reshape(shape)

    def close(self) -> None:
        """Give the descriptor back; the memory goes once the last view of the last process is gone."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        self.close()
