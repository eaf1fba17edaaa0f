"""Prepared rows in files of the server's home: each written once, and mapped by whoever needs it.

So rows may be larger than memory, jobs with the same rows share them, and a queued job holds none of them. A file lasts
as long as some job has it. What a server that was killed left behind is removed by the next: rows are prepared again.

Rows come in the data set's order and go shard after shard. A file that is larger than a window is therefore written in
two passes, both in order: each row goes to the spill of its window, then each window is put in order and written.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from chainrule.transport.local_link.segment import Segment
from chainrule_server.errors import StorageFull

SUFFIX = ".rows"
# What is put in order at once; of very many rows more, so that there are not too many spills.
WINDOW_BYTES = 64 << 20
MOST_WINDOWS = 256


class RowFile:
    """A file of prepared rows, which goes with the last that has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = path.stat().st_size
        self._lock = threading.Lock()
        self._segment: Callable[[], Segment | None] = lambda: None
        # What is left at this process's end is removed by the next.
        weakref.finalize(self, _remove, path).atexit = False

    def segment(self) -> Segment:
        """The file, mapped to be read; it stays mapped for as long as somebody has this or a view of it.

        Raises StorageFull where it can't be opened."""
        with self._lock:
            found = self._segment()
            if found is None:
                with _on_disk(self.path):
                    descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    found = Segment(descriptor, self.size_bytes, writable=False, populate=False)
                except BaseException:
                    os.close(descriptor)
                    raise
                self._segment = weakref.ref(found)
            return found


def _remove(path: Path) -> None:
    """Remove a file beside the thread that let go of it, which may be an event loop's: gigabytes take a while."""
    threading.Thread(target=path.unlink, kwargs={"missing_ok": True}, name="remove rows", daemon=True).start()


class NewFile:
    """A file that is being written. Every method raises StorageFull."""

    def __init__(self, file: IO[bytes]) -> None:
        self.path = Path(file.name)
        self._file = file

    def write(self, array: NDArray[Any]) -> None:
        """Append an array."""
        with _on_disk(self.path.parent):
            self._file.write(_bytes_of(array))

    def put(self, offset_bytes: int, array: NDArray[Any]) -> None:
        """Write an array at a place at or behind the end; what lies between is zeros."""
        with _on_disk(self.path.parent):
            self._file.seek(offset_bytes)
            self._file.write(_bytes_of(array))

    def cut(self, size_bytes: int) -> None:
        """Give the file its whole size."""
        with _on_disk(self.path.parent):
            self._file.flush()
            self._file.truncate(size_bytes)

    def spill(self) -> IO[bytes]:
        """A file beside it, without a name."""
        with _on_disk(self.path.parent):
            return tempfile.TemporaryFile(dir=self.path.parent)


class RowFolder:
    """The files of one server, in a folder of their own. Raises OSError where that can't be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._kept: weakref.WeakValueDictionary[str, RowFile] = weakref.WeakValueDictionary()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            left.unlink()

    @contextmanager
    def writing(self) -> Iterator[NewFile]:
        """A new file, under a name that goes with the block; `keep` gives it its own. Raises StorageFull."""
        with _on_disk(self._folder):
            file = tempfile.NamedTemporaryFile(dir=self._folder, delete=False)  # noqa: SIM115 - closed below
        try:
            yield NewFile(file)
        finally:
            with contextlib.suppress(OSError):  # what couldn't be written was told when it was
                file.close()
            Path(file.name).unlink(missing_ok=True)

    def keep(self, file: NewFile, key: str) -> RowFile:
        """The file that was written, or the one that is there with the same key. Raises StorageFull."""
        with self._lock, _on_disk(self._folder):
            found = self._kept.get(key)
            if found is None:
                # One with the same rows may be about to go: it must not take this one along.
                names = (f"{key}{f'-{number}' if number else ''}{SUFFIX}" for number in itertools.count())
                path = next(path for name in names if not (path := self._folder / name).exists())
                file.path.rename(path)
                found = self._kept[key] = RowFile(path)
            return found


class RowWriter:
    """Writes rows, which come in the data set's order, to their places in a file. Raises StorageFull.

    place_of: the place of each row. row_bytes: of one."""

    def __init__(self, file: NewFile, place_of: NDArray[np.int64], row_bytes: int) -> None:
        self._file = file
        self._place_of = place_of
        self._row_type = np.dtype((np.void, row_bytes))
        size_bytes = len(place_of) * row_bytes
        self._window_rows = -(-len(place_of) // min(MOST_WINDOWS, max(1, -(-size_bytes // WINDOW_BYTES))))
        self._spills: list[IO[bytes]] = []
        self._window = None
        if self._window_rows == len(place_of):
            self._window = np.empty(self._window_rows, self._row_type)
        else:
            for _ in range(0, len(place_of), self._window_rows):
                self._spills.append(file.spill())

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for spill in self._spills:
            with contextlib.suppress(OSError):
                spill.close()

    def put(self, start: int, block: NDArray[Any]) -> None:
        """The rows from number `start` on of the data set: (rows, …), each row_bytes long."""
        # As one element for each row: numpy copies a row at once.
        rows = block.view(self._row_type)[:, 0]
        places = self._place_of[start : start + len(rows)]
        if self._window is not None:
            self._window[places] = rows
            return
        windows = places // self._window_rows
        order = np.argsort(windows, kind="stable")
        ends = np.searchsorted(windows, np.arange(len(self._spills)), side="right", sorter=order).tolist()
        with _on_disk(self._file.path.parent):
            for spill, (begin, end) in zip(self._spills, pairwise([0, *ends]), strict=True):
                spill.write(_bytes_of(rows[order[begin:end]]))

    def finish(self) -> None:
        """Put what came in order, and write it."""
        if self._window is not None:
            self._file.write(self._window)
            return
        # The rows of each window, in the order in which they came.
        came = np.argsort(self._place_of // self._window_rows, kind="stable")
        for number, spill in enumerate(self._spills):
            first = number * self._window_rows
            own = came[first : first + self._window_rows]
            window = np.empty(len(own), self._row_type)
            with _on_disk(self._file.path.parent):
                spill.seek(0)
                window[self._place_of[own] - first] = np.fromfile(spill, self._row_type, len(own))
                spill.close()
            self._file.write(window)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """The bytes of an array of one axis. Not by its `tofile`, whose error doesn't say what the system said."""
    return array.view(np.uint8).data


@contextmanager
def _on_disk(path: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFull(
            f"the prepared rows can't be kept in {path}: {error.strerror or error}; make room there, take fewer rows, "
            "or submit it when other jobs have ended"
        ) from error
