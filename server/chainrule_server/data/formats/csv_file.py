"""Rows from a CSV file: the first line names the columns, and Arrow finds out what they hold.

The file is parsed once, only the columns that are wanted, and a column leaves Arrow's memory with the table.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from chainrule.cells.endings import ending_of
from chainrule.cells.texts import CellRules
from chainrule.v1 import job_pb2
from chainrule_server.data.column_choice import check_names
from chainrule_server.data.columns import MAX_CATEGORIES, Categories, Column, ColumnError, block_slices, is_number
from chainrule_server.data.data_root import DataFileError, OtherDelimiter
from chainrule_server.data.formats.arrow_columns import arrow_errors, column_of, columns_of
from chainrule_server.data.size_checks import table_bytes

MAX_HEADER_BYTES = 1 << 20
# So many rows tell whether the line above them names the columns.
SEEN_ROWS = 50
SEARCHED_BYTES = 1 << 22
# A -0 that is written longer than this is not looked for.
MAX_ZERO_BYTES = 64
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
# Where more of a column's values than this part are numbers, the others are taken for mistakes.
MOSTLY_NUMBERS = 0.5


class CsvFile:
    """A CSV file whose header was read. Raises DataFileError, ColumnError."""

    def __init__(
        self, file: BinaryIO, name: str, form: job_pb2.CsvFormat, rules: CellRules, *, has_header: bool = True
    ) -> None:
        """has_header: whether the first line names the columns; without, they are called by their places."""
        self._file, self._name, self._rules, self.has_header = file, name, rules, has_header
        self._delimiter = form.delimiter or ("\t" if ending_of(name) == ".tsv" else ",")
        self._decimal_point = form.decimal_point or "."
        self.names = self._header()

    def size_bytes(self, wanted: Sequence[str]) -> int:
        """See `TableFile`. How many rows there are is told by how long those of the first part are."""
        size_bytes = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        start = self._file.read(MAX_HEADER_BYTES)
        lines = max(1, start.count(b"\n"), start.count(b"\r"))
        row_count = -(-size_bytes * lines // max(1, len(start)))
        return table_bytes(row_count, len(wanted), raw_bytes=size_bytes)

    def table(self, wanted: Sequence[str], categories: Sequence[str]) -> CsvTable:
        """These columns of the file; see `TableFile`."""
        text = pa.dictionary(pa.int32(), pa.string())
        # Read as they stand: 01234 keeps its zero.
        types = {name: text for name in categories if name in wanted}
        written = [name for name in self._rules.written if name in wanted]
        types |= dict.fromkeys(written, pa.string())
        with arrow_errors(self._name):
            table = self._read(wanted, types)
            whole = [name for name in wanted if pa.types.is_integer(table.schema.field(name).type)]
            if whole and self._holds_minus_zero():
                # A whole number has no -0. One in hexadecimal is read only as such.
                with contextlib.suppress(pa.ArrowInvalid):
                    table = self._read(wanted, types | dict.fromkeys(whole, pa.float64()))
            for name in written:
                place = table.schema.get_field_index(name)
                table = table.set_column(place, name, self._numbers_of(table[name], name))
        return CsvTable(table, self._name, tuple(categories))

    def _numbers_of(self, texts: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        """A column of numbers that are written for people. Raises ColumnError."""
        chunks = []
        for chunk in texts.dictionary_encode().chunks:
            found = [
                None if text is None else self._rules.number_of(text, name) for text in chunk.dictionary.to_pylist()
            ]
            for text, number in zip(chunk.dictionary.to_pylist(), found, strict=True):
                if text is not None and number is None:
                    row = texts.index(text).as_py()
                    raise ColumnError(
                        f"{name!r} is {text[:40]!r} in row {row} (counted from 0), which is no number; leave a missing "
                        "value empty, or take the column out of data.csv.numbers",
                        field="data.csv.numbers",
                    )
            values = pa.array(found, type=pa.float64())
            chunks.append(values.take(chunk.indices))
        return pa.chunked_array(chunks, type=pa.float64())

    def cells(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """See `TableFile`."""
        self._file.seek(0)
        with arrow_errors(self._name):
            rows = pc.open_csv(
                pa.PythonFile(self._file, mode="r"),
                read_options=pc.ReadOptions(column_names=None if self.has_header else self.names),
                parse_options=self._parse_options,
                convert_options=self._convert_options(names, dict.fromkeys(names, pa.binary())),
            )
            for batch in rows:
                yield [batch.column(place) for place in range(batch.num_columns)]

    @property
    def _parse_options(self) -> pc.ParseOptions:
        return pc.ParseOptions(delimiter=self._delimiter, newlines_in_values=True)

    def _convert_options(self, names: Sequence[str], types: dict[str, pa.DataType]) -> pc.ConvertOptions:
        return pc.ConvertOptions(
            include_columns=list(names),
            column_types=types,
            decimal_point=self._decimal_point,
            null_values=sorted(self._rules.in_csv),
            strings_can_be_null=True,
            auto_dict_encode=True,
            auto_dict_max_cardinality=MAX_CATEGORIES,
        )

    def _read(self, wanted: Sequence[str], types: dict[str, pa.DataType]) -> pa.Table:
        self._file.seek(0)
        return pc.read_csv(
            pa.PythonFile(self._file, mode="r"),
            parse_options=self._parse_options,
            convert_options=self._convert_options(wanted, types),
        )

    def _holds_minus_zero(self) -> bool:
        """Whether some cell may be -0."""
        pattern = re.compile(rb"-0+[ \t]*(?:[\r\n\"]|" + re.escape(self._delimiter.encode()) + rb"|\Z)")
        self._file.seek(0)
        kept = b""
        while part := self._file.read(SEARCHED_BYTES):
            if pattern.search(kept + part):
                return True
            kept = part[-MAX_ZERO_BYTES:]
        return False

    def _header(self) -> tuple[str, ...]:
        self._file.seek(0)
        start = self._file.read(MAX_HEADER_BYTES)
        if not start.strip():
            raise DataFileError(f"{self._name} is empty; the first line names the columns, and rows follow")
        if len(start) == MAX_HEADER_BYTES and b"\n" not in start and b"\r" not in start:
            raise DataFileError(f"{self._name}: the first line is longer than {MAX_HEADER_BYTES} bytes; is it a table?")
        try:
            # What the last byte begins may end after it.
            text = codecs.getincrementaldecoder("utf-8-sig")().decode(start, final=len(start) < MAX_HEADER_BYTES)
        except UnicodeDecodeError:
            raise DataFileError(f"{self._name} is not UTF-8; save it as UTF-8") from None
        try:
            # Lines without anything in them come before no header that Arrow sees.
            rows = (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter) if row)
            names = next(rows)
        except (csv.Error, StopIteration) as error:
            raise DataFileError(f"{self._name}: the first line can't be read: {error}") from None
        if not self.has_header:
            return tuple(str(place) for place in range(1, len(names) + 1))
        self._check_header(names, _first_rows(rows))
        return tuple(names)

    def _check_header(self, names: list[str], below: list[list[str]]) -> None:
        width = max((len(row) for row in below), default=0)
        written = [name for name in names if name.strip()]
        line = self._delimiter.join(names)
        if re.fullmatch(r"sep=.{0,2}", line, re.I):
            raise DataFileError(
                f"{self._name}: the first line, {line!r}, is meant for Excel; take it out, and say "
                f"data.csv = {{ delimiter = … }} where it is no comma"
            )
        if len(written) <= 1 < width and (len(names) == 1 or len(names) > 2):
            raise DataFileError(
                f"{self._name}: the first line, {' '.join(written)[:60]!r}, is a title, and no names for the {width} "
                "columns; take out the lines above the names"
            )
        if len(names) == 1:
            for other, called in DELIMITERS.items():
                if other != self._delimiter and other in names[0]:
                    shown = other.replace("\t", "\\t")
                    raise OtherDelimiter(
                        f"{self._name} has one column, {names[0][:60]!r}; where {called} divides the columns, say "
                        f'data.csv = {{ delimiter = "{shown}" }}',
                        found=other,
                        expected=self._delimiter,
                    )
        # A column may be called 2019. One that is called 5.1, or all of them numbers, are a row; unless another's name
        # stands above nothing but numbers, as no row does: spectra are tables of wavelengths.
        numbers = [name for name in names if is_number(name.replace(self._decimal_point, "."))]
        fractions = [name for name in numbers if not name.strip().isdecimal()]
        if (fractions and not self._is_above_numbers(names, below)) or len(numbers) == len(names):
            found = (fractions or numbers)[0]
            raise DataFileError(
                f"{self._name}: the first line must name the columns, but holds {found!r}; put a line of names before "
                "the rows"
            )
        check_names(names)

    def _is_above_numbers(self, names: list[str], below: list[list[str]]) -> bool:
        """Whether some name that is no number has only numbers below it."""
        for place, name in enumerate(names):
            cells = [row[place] for row in below if place < len(row) and row[place] not in self._rules.in_csv]
            is_name = bool(name.strip()) and self._rules.number_of(name) is None
            if is_name and cells and all(self._rules.number_of(cell) is not None for cell in cells):
                return True
        return False


def _first_rows(rows: Iterator[list[str]]) -> list[list[str]]:
    """The rows that follow, as far as they need be looked at, and can be."""
    with contextlib.suppress(csv.Error):
        return list(itertools.islice(rows, SEEN_ROWS))
    return []


@dataclass(frozen=True)
class CsvTable:
    """The columns of a CSV file that were wanted. See `Table`."""

    _table: pa.Table
    _name: str
    _categories: tuple[str, ...]

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return int(self._table.num_rows)

    def read(self, name: str) -> Column:
        """The column of that name. Raises ColumnError, DataFileError."""
        with arrow_errors(self._name):
            column = column_of(self._table[name], name=name, is_category=name in self._categories)
        if isinstance(column, Categories) and name not in self._categories:
            self._check_not_mixed(name, column)
        return column

    def blocks(self, names: Sequence[str]) -> Iterator[list[Column]]:
        """See `Table`."""
        with arrow_errors(self._name):
            for rows in block_slices(self.row_count, len(names)):
                yield columns_of(self._table.slice(rows.start, rows.stop - rows.start), names, self._categories)

    def _check_not_mixed(self, name: str, column: Categories) -> None:
        """Refuse numbers with a few texts among them: a CSV file does not say what it means."""
        is_text = np.array([not is_number(text) for text in column.names], dtype=bool)
        rows = np.flatnonzero((column.codes >= 0) & np.append(is_text, False)[column.codes])
        if 0 < len(rows) < MOSTLY_NUMBERS * np.count_nonzero(column.codes >= 0):
            row = int(rows[0])
            raise ColumnError(
                f"{name!r} holds numbers, but {column.names[column.codes[row]][:40]!r} in row {row} (counted from 0) "
                f"of {self._name}; leave a missing value empty, or, where the column is categories, say "
                f'data.categories = ["{name}"]'
            )
