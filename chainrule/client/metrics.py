"""What was measured of a job, as arrays by name: for plots, and for pandas where it is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.client.metric_table import table
from chainrule.v1 import job_service_pb2 as api


class Metrics(Mapping[str, NDArray[Any]]):
    """Columns of one length by name, a place for each step that was measured; NaN, or an empty time, where a step has
    no such value."""

    def __init__(self, rows: Sequence[api.MetricRow]) -> None:
        names, cells = table(rows)
        self._columns = {
            name: np.array(column, dtype=np.int64) if name == "step" else _column(column)
            for name, column in zip(names, zip(*cells, strict=True) if cells else [()] * len(names), strict=True)
        }

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"<Metrics of {len(self._columns['step'])} steps: {', '.join(self._columns)}>"

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with the steps as its index. Raises ImportError where pandas isn't installed."""
        try:
            import pandas
        except ImportError:
            raise ImportError("pandas is not installed: pip install pandas, or take the arrays by name") from None
        return pandas.DataFrame(self._columns).set_index("step")


def _column(values: Sequence[Any]) -> NDArray[Any]:
    if any(isinstance(value, str) and value for value in values):
        return np.array(["" if value is None else str(value) for value in values])
    return np.array([np.nan if value in ("", None) else float(value) for value in values])
