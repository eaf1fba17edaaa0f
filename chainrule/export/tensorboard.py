"""What was measured of a job as an event file that TensorBoard shows; tensorboardX writes it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from chainrule.v1 import job_service_pb2 as api

NAME = "events.out.tfevents.chainrule"


class TensorBoardMissing(Exception):
    """tensorboardX isn't installed."""


def write_events(rows: Sequence[api.MetricRow], folder: Path, *, otherwise_s: float) -> Path:
    """The event file NAME in `folder`, which is made, replaced where it is there: a scalar for each measure of a step.

    Tags are the columns of the CSV. otherwise_s: the time of rows without one, Unix seconds. Values are float32, as
    TensorBoard has them. Raises TensorBoardMissing, OSError."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise TensorBoardMissing from None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chainrule-") as temporary:
        writer = SummaryWriter(temporary)
        for row in rows:
            at_s = row.time.seconds + row.time.nanos / 1e9 if row.HasField("time") else otherwise_s
            values = {"loss": row.loss}
            if row.HasField("validation_loss"):
                values["validation_loss"] = row.validation_loss
            values |= {metric.name: metric.value for metric in row.metrics}
            for name, value in values.items():
                writer.add_scalar(name, value, row.step, walltime=at_s)
        writer.close()
        (content,) = [path.read_bytes() for path in Path(temporary).iterdir()]
    # One name: TensorBoard shows all files of a folder as one run, and would draw an earlier export over this one.
    written = folder / NAME
    written.write_bytes(content)
    return written
