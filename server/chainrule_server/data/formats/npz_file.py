"""Rows from an .npz file: arrays `features` and `target`, and where they are given `feature_names` and `classes`.

Pickles are never read. Arrays keep their own precision where it is float32, so a large file is in memory once.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from chainrule_server.data.columns import BLOCK_VALUES
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.size_checks import BLOCK_VALUE_BYTES, ROW_BYTES, TEXT_BYTES, VALUE_BYTES, check_unpacked

KNOWN = ("features", "target", "feature_names", "classes")


@dataclass(frozen=True)
class NpzRows:
    """features: (n, d) float32 or float64. target: (n,) float64, or int64 numbers of `classes`, which are sorted."""

    features: NDArray[Any]
    target: NDArray[Any]
    feature_names: tuple[str, ...]
    classes: tuple[str, ...] | None


def read_npz(file: BinaryIO) -> NpzRows:
    """The rows of an .npz file. Raises DataFileError."""
    arrays = read_arrays(file, KNOWN)
    missing = [name for name in ("features", "target") if name not in arrays]
    if missing:
        raise DataFileError(
            f"holds no array {' and no array '.join(repr(name) for name in missing)}; "
            "write it with numpy.savez(file, features=…, target=…), or name the array to predict in data.target"
        )
    features, names = _features(arrays)
    target = _numbers("target", arrays["target"])
    if target.ndim != 1:
        raise DataFileError(f"'target' has shape {target.shape}; give it a number for each row, (n,)")
    row_count = len(features)
    if len(target) != row_count:
        raise DataFileError(f"'features' has {row_count} rows, but 'target' {len(target)}; give each row its target")
    if not features.size:
        raise DataFileError(f"'features' has shape {features.shape}, so there is nothing to learn from")
    if "classes" not in arrays:
        return NpzRows(features, target.astype(np.float64, copy=False), names, None)
    numbers, classes = _classes(target, _strings("classes", arrays["classes"]))
    return NpzRows(features, numbers, names, classes)


def read_features(file: BinaryIO) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The features of an .npz file, (n, d) float32 or float64, and their names. Raises DataFileError."""
    return _features(read_arrays(file, ("features", "feature_names")))


def _features(arrays: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], tuple[str, ...]]:
    features = _numbers("features", arrays["features"])
    if features.ndim != 2:
        raise DataFileError(f"'features' has shape {features.shape}; give it a row for each example, (n, d)")
    names = tuple(f"x[{index}]" for index in range(features.shape[1]))
    if "feature_names" in arrays:
        names = _strings("feature_names", arrays["feature_names"])
        if len(names) != features.shape[1]:
            raise DataFileError(
                f"{len(names)} feature_names for {features.shape[1]} features; give each column one name"
            )
    return (features if features.dtype == np.float32 else features.astype(np.float64, copy=False)), names


def array_names(file: BinaryIO) -> tuple[str, ...]:
    """The names of the arrays in an .npz file. Raises DataFileError."""
    if not zipfile.is_zipfile(file):
        raise DataFileError("is not an .npz file; write it with numpy.savez(file, features=…, target=…)")
    file.seek(0)
    with numpy_errors("the file"), np.load(file, allow_pickle=False) as archive:
        return tuple(archive.files)


def read_arrays(file: BinaryIO, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Those of the arrays that there are, by name; others are not read. Raises DataFileError."""
    wanted = list(names)
    _check_unpacked(file, wanted)
    there = set(array_names(file))
    file.seek(0)
    found: dict[str, NDArray[Any]] = {}
    with numpy_errors("the file"), np.load(file, allow_pickle=False) as archive:
        for name in wanted:
            if name in there:
                with numpy_errors(repr(name)):
                    array = archive[name]
                if not isinstance(array, np.ndarray):  # a member that is no array comes as its bytes
                    raise DataFileError(f"{name!r} is no array; write the file with numpy.savez")
                found[name] = array
    return found


def arrays_size_bytes(file: BinaryIO, names: Iterable[str]) -> int:
    """What reading these arrays takes of memory at most, with one value of ours for each; their headers tell it.

    Raises DataFileError."""
    total = 0
    with numpy_errors("the file"), zipfile.ZipFile(file) as archive:
        for name in set(names):
            member = f"{name}.npy" if f"{name}.npy" in archive.NameToInfo else name
            if member in archive.NameToInfo:
                with archive.open(member) as content:
                    total += array_size_bytes(content)
    return total


def array_size_bytes(content: IO[bytes]) -> int:
    """The same for one array, whose header comes next. Raises ValueError where it has none."""
    version = np.lib.format.read_magic(content)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(content)
    rows, values = (shape or (1,))[0], math.prod(shape)
    # As it is in the file, as float64, and once more where a class is looked up; texts become objects.
    ours = TEXT_BYTES if dtype.kind == "U" else 2 * VALUE_BYTES if len(shape) > 1 else VALUE_BYTES
    block_values = min(values, BLOCK_VALUES)
    return int(values * (dtype.itemsize + ours) + ROW_BYTES * rows + BLOCK_VALUE_BYTES * block_values)


def _check_unpacked(file: BinaryIO, names: Iterable[str]) -> None:
    """Refuse arrays that are small only where they are packed. Nothing is read beyond the size that is told here."""
    with numpy_errors("the file"), zipfile.ZipFile(file) as archive:
        members = {member for name in names for member in (name, f"{name}.npy")}
        check_unpacked(sum(each.file_size for each in archive.infolist() if each.filename in members), "the file")


@contextmanager
def numpy_errors(what: str) -> Iterator[None]:
    """Turn what numpy raises on a file into DataFileError. what: it was reading."""
    try:
        yield
    except DataFileError:
        raise
    except MemoryError:
        raise DataFileError(f"{what} does not fit into the memory of the server; take fewer rows") from None
    except ValueError as error:
        if "pickle" in str(error):
            message = f"{what} holds Python objects, which are never read; save an array of numbers or strings"
            raise DataFileError(message) from None
        raise DataFileError(f"{what} can't be read ({error}); write the file again") from None
    except (OSError, EOFError, KeyError, SyntaxError, NotImplementedError, RuntimeError) as error:
        raise DataFileError(f"{what} is broken ({error}); write the file again") from None
    except (zipfile.BadZipFile, zlib.error, tokenize.TokenError) as error:
        raise DataFileError(f"{what} is broken ({error}); write the file again") from None


def _numbers(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "fiub":
        raise DataFileError(f"'{name}' is an array of {array.dtype}; give it as float32, float64 or whole numbers")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native.astype(np.float32) if native.dtype == np.float16 else native


def _strings(name: str, array: NDArray[Any]) -> tuple[str, ...]:
    if array.dtype.kind != "U" or array.ndim != 1:
        raise DataFileError(
            f"'{name}' is an array of {array.dtype} of shape {array.shape}; give it as a list of strings"
        )
    return tuple(array.tolist())


def _classes(target: NDArray[Any], names: tuple[str, ...]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The numbers of the classes in their sorted order, and the sorted names."""
    if target.dtype.kind not in "iu":
        raise DataFileError(f"'target' is {target.dtype}, but with 'classes' it is their numbers; give whole numbers")
    if len(set(names)) < len(names):
        raise DataFileError(f"'classes' names {_first_repeated(names)!r} twice; give each class its own name")
    wrong = np.flatnonzero((target < 0) | (target >= len(names)))
    if wrong.size:
        raise DataFileError(
            f"'target' is {target[wrong[0]]} in row {wrong[0]} (counted from 0), but the {len(names)} classes "
            f"count from 0 to {len(names) - 1}"
        )
    # Sorted, as for every data set: a label belongs to a class by its name, not by the order in a file.
    order = sorted(range(len(names)), key=names.__getitem__)
    number_of = np.empty(len(names), dtype=np.int64)
    number_of[order] = np.arange(len(names))
    return number_of[target], tuple(names[index] for index in order)


def _first_repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
