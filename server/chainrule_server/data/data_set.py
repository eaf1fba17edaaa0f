"""Data sets: where the rows of a job come from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from chainrule.cells.endings import ENDINGS, ending_of
from chainrule.v1 import job_pb2
from chainrule_server.data import column_choice, sklearn_data
from chainrule_server.data.columns import Categories, Column, ColumnError, Table, block_slices, in_rows
from chainrule_server.data.data_root import DataFileError, names_below, open_below
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.data.formats.array_columns import column_of
from chainrule_server.data.formats.npz_file import array_names, arrays_size_bytes, read_npz
from chainrule_server.data.kept_rows import LEAVE_OUT, KeptRows, is_missing, kept_of
from chainrule_server.data.memory_budget import MemoryBudget
from chainrule_server.data.object_storage import SCHEMES, ObjectStorage
from chainrule_server.data.size_checks import check_row_count
from chainrule_server.data.table_files import open_files
from chainrule_server.errors import NotFound

OpenFile = Callable[[str], BinaryIO]


class DataError(ValueError):
    """Data that can't be used. `field` is the path in the job's spec that asks for it."""

    def __init__(self, message: str, *, field: str = "data.uri") -> None:
        self.field = field
        super().__init__(message)


@contextmanager
def data_errors(uri: str) -> Iterator[None]:
    """Turn what a file or a column raises into DataError, with the data set's URI in front."""
    try:
        yield
    except (ColumnError, DataFileError) as error:
        raise DataError(f"{uri}: {error}", field=error.field) from None


class _Closes:
    """`with` closes a data set's files at its end."""

    def close(self) -> None:
        """Close the files; without files nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class DataSet(_Closes):
    """Rows in memory, as they came. features: (n, d) float64 or float32. target: (n,) float64, or int64 numbers of
    `classes`.

    classes: sorted names, None where the target is a number. categories: features whose whole numbers are names."""

    uri: str
    features: NDArray[Any]
    target: NDArray[Any]
    feature_names: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    target_name: str = "the target"
    categories: frozenset[str] = frozenset()
    # What is held while it is used: memory that is reserved for it.
    held: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    def close(self) -> None:
        """Give back what is held."""
        self.held.close()

    def feature(self, index: int) -> Column:
        """The feature with that place in `feature_names`. Raises ColumnError."""
        name = self.feature_names[index]
        return column_of(self.features[:, index], name=name, is_category=name in self.categories)

    def blocks(self) -> Iterator[list[Column]]:
        """All features, a block of rows at a time. Raises ColumnError."""
        for rows in block_slices(len(self.target), len(self.feature_names)):
            # One column after the other in memory, as they are gone through.
            columns = np.ascontiguousarray(self.features[rows].T)
            yield [
                column_of(values, name=name, is_category=name in self.categories)
                for values, name in zip(columns, self.feature_names, strict=True)
            ]


@dataclass(frozen=True)
class FileRows(_Closes):
    """Rows of files, whose features are read when they are asked for. See `Rows`."""

    uri: str
    feature_names: tuple[str, ...]
    target_name: str
    target: NDArray[Any]
    classes: tuple[str, ...] | None
    table: Table
    files: ExitStack = field(repr=False)

    def feature(self, index: int) -> Column:
        """The feature with that place in `feature_names`. Raises ColumnError, DataFileError."""
        name = self.feature_names[index]
        column = self.table.read(name)
        row_count = len(column.codes if isinstance(column, Categories) else column.values)
        if row_count != len(self.target):
            raise DataFileError(
                f"{name!r} has {row_count} rows, but the target {len(self.target)}; is it being written?"
            )
        return column

    def blocks(self) -> Iterator[list[Column]]:
        """All features, a block of rows at a time. Raises ColumnError, DataFileError."""
        return self.table.blocks(self.feature_names)

    def close(self) -> None:
        """Close the files."""
        self.files.close()


def load(
    data: job_pb2.DataSpec | str,
    *,
    data_root: Path | None = None,
    data_sets: DataSetStore | None = None,
    object_storage: ObjectStorage | None = None,
    memory: MemoryBudget | None = None,
) -> DataSet | FileRows:
    """The data set of a job, or of a URI.

    data_root: the folder that `file:` may read; None: no file is read. data_sets: what `dataset:` may read.
    object_storage: what `s3:` and `gs:` may read. memory: where what reading takes is reserved, until the block's end.
    Use it in a `with` statement: it may hold files open. Raises DataError where it isn't there or can't be read."""
    spec = job_pb2.DataSpec(uri=data) if isinstance(data, str) else data
    scheme, _, name = spec.uri.partition(":")
    with data_errors(spec.uri):
        if scheme == "file":
            return _from_files(spec, *_below(name, data_root), memory)
        if scheme == "dataset":
            return _from_files(spec, *_uploaded(name, data_sets), memory)
        if scheme in SCHEMES:
            storage = object_storage or ObjectStorage()
            return _from_files(spec, storage.names(spec.uri, ENDINGS), storage.open, memory)
    if spec.uri not in LOADERS:
        raise DataError(f"there is no data set {spec.uri!r}; {_hint(spec.uri)}")
    rows = LOADERS[spec.uri]()
    with data_errors(spec.uri):
        _check_no_csv(spec)
        return _chosen(rows, spec)


def _hint(uri: str) -> str:
    # Only the names are compared: a scheme in common would make 'sklearn:boston' look like 'sklearn:digits'.
    by_name = {known.partition(":")[2]: known for known in LOADERS}
    near = difflib.get_close_matches(uri.rpartition(":")[2], by_name, n=1)
    if near:
        return f"did you mean '{by_name[near[0]]}'?"
    return (
        f"there are {', '.join(sorted(LOADERS))}, and for your own 'file:NAME.csv' (.parquet, .arrow, .npz, …), "
        "'dataset:NAME', 's3://BUCKET/KEY' and 'gs://BUCKET/KEY'"
    )


def _below(name: str, data_root: Path | None) -> tuple[list[str], OpenFile]:
    """The names of the files that a name below the data root means, and what opens one."""
    if not name:
        raise DataFileError("names no file; write 'file:NAME.csv', or 'file:FOLDER'")
    return names_below(data_root, name, ENDINGS), partial(open_below, data_root)


def _uploaded(reference: str, data_sets: DataSetStore | None) -> tuple[list[str], OpenFile]:
    """The name of an uploaded file, and what opens it."""
    if data_sets is None:
        raise DataFileError("data sets are on a server, and this is none; write 'file:NAME.csv' here")
    try:
        record = data_sets.find(reference)
    except NotFound as error:
        raise DataFileError(str(error)) from None
    return [record.name], lambda _: data_sets.open(record.sha256)


def _from_files(
    spec: job_pb2.DataSpec, names: list[str], open_file: OpenFile, memory: MemoryBudget | None
) -> DataSet | FileRows:
    if len(names) == 1 and ending_of(names[0]) == ".npz":
        with open_file(names[0]) as file:
            # Without such an array each one is a column; the message for a file with neither is that of `read_npz`.
            if not spec.target or "features" in array_names(file):
                _check_no_csv(spec)
                with ExitStack() as stack:
                    _reserve(memory, arrays_size_bytes(file, ("features", "target")), spec.uri, stack)
                    file.seek(0)
                    rows = read_npz(file)
                    found = DataSet(spec.uri, rows.features, rows.target, rows.feature_names, rows.classes)
                    return replace(_chosen(found, spec), held=stack.pop_all())
    with ExitStack() as stack:
        files = open_files(names, open_file, spec, stack)
        choice = column_choice.choose(files.columns, spec)
        wanted = (*choice.features, choice.target)
        _reserve(memory, files.size_bytes(wanted), spec.uri, stack)
        table: Table = files.table(wanted, choice.categories)
        check_row_count(table.row_count, len(wanted))
        column = table.read(choice.target)
        missing = is_missing(column)
        if spec.missing_target == LEAVE_OUT and missing.any():
            if missing.all():
                raise ColumnError(f"{choice.target!r} is the target, but has no value in any row", field="data.target")
            table = KeptRows(table, ~missing)
            column = kept_of(column, ~missing, name=choice.target)
        target, classes = _target(column, name=choice.target)
        return FileRows(spec.uri, choice.features, choice.target, target, classes, table=table, files=stack.pop_all())


def _reserve(memory: MemoryBudget | None, size_bytes: int, uri: str, stack: ExitStack) -> None:
    """Reserve memory until the stack is closed. Raises LimitExceeded, OutOfMemory."""
    if memory is not None:
        stack.enter_context(memory.reserved(size_bytes, uri))


def _chosen(rows: DataSet, spec: job_pb2.DataSpec) -> DataSet:
    """The data set with the features that a job takes. It has a target of its own, called "target"."""
    if spec.target not in ("", "target"):
        raise ColumnError("has a target of its own; leave data.target out", field="data.target")
    names = rows.feature_names
    column_choice.check_names(names)
    if spec.features or spec.exclude or spec.categories:
        chosen = column_choice.choose_features(names, spec, all_names=(*names, "target"))
        rows = replace(rows, categories=frozenset(spec.categories))
        if chosen != names:
            places = [names.index(name) for name in chosen]
            rows = replace(rows, feature_names=chosen, features=np.ascontiguousarray(rows.features[:, places]))
        if "target" in spec.categories and rows.classes is None:
            target, classes = _target(column_of(rows.target, name="target", is_category=True), name="target")
            rows = replace(rows, target=target, classes=classes)
    return rows


def _check_no_csv(spec: job_pb2.DataSpec) -> None:
    if spec.HasField("csv"):
        raise ColumnError("is no CSV file; leave data.csv out", field="data.csv")


def _target(column: Column, *, name: str) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """(target, classes) of a column. Raises ColumnError where a row has none."""
    missing = is_missing(column)
    if missing.any():
        rows = np.flatnonzero(missing)
        raise ColumnError(
            f"{name!r} is the target, but has no value {in_rows(rows)}; take out the rows whose target is not "
            f'known, or say data.missing_target = "{LEAVE_OUT}"'
        )
    if isinstance(column, Categories):
        return column.codes.astype(np.int64), column.names
    return column.values.astype(np.float64, copy=False), None


def _from_sklearn(name: str) -> DataSet:
    try:
        rows = sklearn_data.read(name)
    except sklearn_data.NoScikitLearn as error:
        raise DataError(
            f"'sklearn:{name}' comes with scikit-learn, which is not installed here; pip install 'chainrule[sklearn]'"
        ) from error
    if rows.target_names is None:
        return DataSet(f"sklearn:{name}", rows.features, np.asarray(rows.target, np.float64), rows.feature_names)
    # Sorted: the number of a class must not depend on the order in which a loader names them.
    classes, target = np.unique(np.asarray(rows.target_names)[rows.target], return_inverse=True)
    return DataSet(
        f"sklearn:{name}", rows.features, target.astype(np.int64), rows.feature_names, tuple(classes.tolist())
    )


LOADERS: dict[str, Callable[[], DataSet]] = {
    f"sklearn:{name}": partial(_from_sklearn, name) for name in sklearn_data.FEATURE_NAMES
}
