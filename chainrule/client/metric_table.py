"""What was measured of a job as a table: a row for each step that was kept, a column for each measure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from chainrule.v1 import job_service_pb2 as api

FIXED_COLUMNS = ("step", "epoch", "time", "loss", "validation_loss")
Cell = int | float | str | None


def table(rows: Sequence[api.MetricRow]) -> tuple[list[str], list[list[Cell]]]:
    """The names of the columns, and the cells; None where a step has no such value, because no epoch ended there.

    Measures come after the fixed columns in the order in which they first appear. Times are ISO 8601, UTC."""
    measures = list(dict.fromkeys(metric.name for row in rows for metric in row.metrics))
    cells: list[list[Cell]] = []
    for row in rows:
        values = {metric.name: metric.value for metric in row.metrics}
        cells.append(
            [
                row.step,
                row.epoch if row.HasField("epoch") else None,
                row.time.ToJsonString() if row.HasField("time") else None,
                row.loss,
                row.validation_loss if row.HasField("validation_loss") else None,
                *(values.get(name) for name in measures),
            ]
        )
    return [*FIXED_COLUMNS, *measures], cells


def csv_text(rows: Sequence[api.MetricRow]) -> str:
    """The table as CSV (RFC 4180, but for lines that end in LF); numbers with all their digits, empty for no value."""
    names, cells = table(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(cells)
    return text.getvalue()
