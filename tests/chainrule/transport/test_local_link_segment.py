"""Memory that two processes map: who may write it, who may not, and what happens where there is none."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.process.available_memory import available_memory_bytes
from chainrule.transport.local_link import segment as segment_module
from chainrule.transport.local_link.listener import why_unsupported
from chainrule.transport.local_link.segment import RESERVE_BYTES, Segment, SegmentError

pytestmark = pytest.mark.skipif(why_unsupported() is not None, reason=str(why_unsupported()))
ELEMENTS = 1024


@pytest.fixture
def sealed() -> Segment:
    """A segment that others can only read, with 0, 1, 2 … in it."""
    made = Segment.create(4 * ELEMENTS, name="test")
    made.vector(0, ELEMENTS)[...] = np.arange(ELEMENTS, dtype=np.float32)
    made.seal_read_only()
    return made


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_both_sides_see_what_either_writes() -> None:
    made = Segment.create(4 * ELEMENTS, name="test")
    opened = Segment.open(made.descriptor, 4 * ELEMENTS, writable=True)
    made.vector(0, ELEMENTS)[0] = 1.5
    opened.vector(0, ELEMENTS)[1] = 2.5
    assert made.vector(0, 2).tolist() == opened.vector(0, 2).tolist() == [1.5, 2.5]


def test_a_sealed_segment_can_be_read_and_its_views_refuse_to_be_written(sealed: Segment) -> None:
    vector = Segment.open(sealed.descriptor, 4 * ELEMENTS, writable=False).vector(0, ELEMENTS)
    assert vector[17] == 17.0
    assert not vector.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        vector.flags.writeable = True


def test_a_sealed_segment_cannot_be_mapped_or_made_or_opened_writable(sealed: Segment) -> None:
    with pytest.raises(SegmentError, match="can't be mapped"):
        Segment.open(sealed.descriptor, 4 * ELEMENTS, writable=True)
    with pytest.raises(PermissionError):
        os.pwrite(sealed.descriptor, b"\1", 0)
    again = os.open(f"/proc/self/fd/{sealed.descriptor}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            mmap.mmap(again, 4 * ELEMENTS, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(again)
    vector = Segment.open(sealed.descriptor, 4 * ELEMENTS, writable=False).vector(0, ELEMENTS)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(vector.ctypes.data)
    assert libc.mprotect(address, ctypes.c_size_t(4 * ELEMENTS), mmap.PROT_READ | mmap.PROT_WRITE) == -1
    # Its maker still can.
    sealed.vector(0, ELEMENTS)[0] = 9.0
    assert vector[0] == 9.0


def test_nobody_can_change_the_size_of_a_segment(sealed: Segment) -> None:
    for size_bytes in (0, 4096, 8 * ELEMENTS):
        if size_bytes != sealed.size_bytes:
            with pytest.raises(PermissionError):
                os.ftruncate(sealed.descriptor, size_bytes)


@pytest.mark.parametrize("size_bytes", [4 * ELEMENTS - 4, 4 * ELEMENTS + 4, 1])
def test_a_segment_of_another_size_than_promised_is_refused(sealed: Segment, size_bytes: int) -> None:
    with pytest.raises(SegmentError, match=f"{size_bytes} bytes was promised, but {4 * ELEMENTS} came"):
        Segment.open(sealed.descriptor, size_bytes, writable=False)


def test_memory_that_could_be_cut_short_is_refused() -> None:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, 4096)
        with pytest.raises(SegmentError, match="unsealed"):
            Segment.open(descriptor, 4096, writable=False)
    finally:
        os.close(descriptor)


def test_a_file_that_is_no_shared_memory_is_refused() -> None:
    with tempfile.TemporaryFile(dir=Path(__file__).parent) as file:
        file.write(bytes(4096))
        file.flush()
        with pytest.raises(SegmentError):
            Segment.open(file.fileno(), 4096, writable=False)
    with pytest.raises(SegmentError, match="no shared memory"):
        Segment.open(10**6, 4096, writable=False)


@pytest.mark.parametrize(("offset_bytes", "size"), [(-4, 1), (2, 1), (4 * ELEMENTS, 1), (0, ELEMENTS + 1)])
def test_a_view_lies_in_its_segment(sealed: Segment, offset_bytes: int, size: int) -> None:
    with pytest.raises(SegmentError, match="don't lie in"):
        sealed.vector(offset_bytes, size)


def test_views_keep_the_memory_of_a_closed_segment() -> None:
    made = Segment.create(4 * ELEMENTS, name="test")
    vector = made.vector(0, ELEMENTS)
    made.close()
    made.close()
    del made
    vector[...] = 3.0
    assert vector.sum() == 3.0 * ELEMENTS


def test_its_space_is_taken_at_once() -> None:
    made = Segment.create(1 << 20, name="test")
    assert os.fstat(made.descriptor).st_blocks * 512 >= 1 << 20


def test_a_segment_has_no_name_and_no_process_inherits_it() -> None:
    made = Segment.create(4096, name="chainrule-test-name")
    assert not [path for path in Path("/dev/shm").iterdir() if "chainrule-test-name" in path.name]  # noqa: S108
    assert fcntl.fcntl(made.descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_segment_that_finds_no_room_says_what_is_free_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_module, "available_memory_bytes", lambda: RESERVE_BYTES + 4096)
    Segment.create(4096, name="test")
    with pytest.raises(SegmentError, match=r"of 4097 bytes is wanted, but only 4096 are free; use a smaller model or"):
        Segment.create(4097, name="test")


def test_a_segment_larger_than_the_machine_is_refused_before_memory_is_taken() -> None:
    with pytest.raises(SegmentError, match="are free"):
        Segment.create(1 << 50, name="test")


@pytest.mark.parametrize("at", ["create", "open"])
def test_a_mapping_that_fails_closes_its_descriptor_once(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Segment.create(4096, name="test")
    before = open_descriptors()

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", fail)
    closed = []
    close = os.close
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), close(descriptor)))
    with pytest.raises(SegmentError, match="Cannot allocate memory"):
        Segment.create(4096, name="t") if at == "create" else Segment.open(made.descriptor, 4096, writable=False)
    assert len(closed) == len(set(closed)) == 1
    assert open_descriptors() == before


def test_a_system_that_seals_nothing_read_only_is_an_error_of_the_segment(
    sealed: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(SegmentError, match="read-only"):
        sealed.seal_read_only()


def test_1000_segments_leave_no_descriptor_and_no_mapping() -> None:
    def look() -> tuple[int, int]:
        return open_descriptors(), Path("/proc/self/maps").read_text().count("memfd:chainrule-leak")

    before = look()
    for _ in range(1000):
        made = Segment.create(4096, name="chainrule-leak")
        made.seal_read_only()
        Segment.open(made.descriptor, 4096, writable=False).vector(0, 1024)
    del made
    assert look() == before


def machine(root: Path, version: int, *, limit: str, used: int, files: int | None = None, group: str = "") -> Path:
    """A root folder with what /proc and /sys say on a machine with 1,024,000 bytes free."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/meminfo").write_text("MemTotal:       10 kB\nMemAvailable:   1000 kB\n")
    (root / "proc/self/cgroup").write_text(f"0::/{group}\n" if version == 2 else f"4:cpu,memory:/{group}\n")
    folder = root / ("sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/memory") / group
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, content in zip(names, (limit, str(used)), strict=True):
        (folder / name).write_text(f"{content}\n")
    if files is not None:
        key = "inactive_file" if version == 2 else "total_inactive_file"
        (folder / "memory.stat").write_text(f"anon 1\n{key} {files}\nfile 7\n")
    return root


@pytest.mark.parametrize("group", ["", "system.slice/chainrule.service"])
@pytest.mark.parametrize("version", [1, 2])
def test_the_container_s_limit_counts_where_it_is_lower_than_the_machine_s_memory(
    version: int, group: str, tmp_path: Path
) -> None:
    root = machine(tmp_path, version, limit="500000", used=100_000, group=group)
    assert available_memory_bytes(root=root) == 400_000
    root = machine(tmp_path, version, limit="500000", used=600_000, group=group)
    assert available_memory_bytes(root=root) == 0


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_an_outer_group_counts_too(version: int, tmp_path: Path) -> None:
    machine(tmp_path, version, limit="300000", used=100_000)
    root = machine(tmp_path, version, limit="500000", used=100_000, group="inner")
    assert available_memory_bytes(root=root) == 200_000


@pytest.mark.parametrize("version", [1, 2])
def test_the_files_that_a_container_has_read_are_no_memory_in_use(version: int, tmp_path: Path) -> None:
    root = machine(tmp_path, version, limit="500000", used=500_000, files=300_000)
    assert available_memory_bytes(root=root) == 300_000


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_without_a_container_s_limit_the_machine_s_memory_counts(limit: str, tmp_path: Path) -> None:
    assert available_memory_bytes(root=machine(tmp_path, 2, limit=limit, used=5)) == 1_024_000


def test_where_nobody_says_what_is_free_nothing_is_assumed(tmp_path: Path) -> None:
    assert available_memory_bytes(root=tmp_path) is None
