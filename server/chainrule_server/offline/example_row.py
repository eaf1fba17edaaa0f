"""`python -P -m chainrule_server.offline.example_row`: one prepared row of a job's data, and parameters, for looking
at.

The question is a JobSpec, the answer the example; see `answering`. Arrays are base64 of little-endian bytes: float32,
float64 for running statistics, or int64 for a class.
"""

# ruff: noqa: E402  (one BLAS thread must be set before numpy is loaded)

from __future__ import annotations

from chainrule.process.lifecycle import limit_blas_threads

limit_blas_threads()

import argparse
import base64
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from chainrule.v1 import job_pb2
from chainrule_engine.model import Model
from chainrule_engine.parameters import Parameter
from chainrule_server.data.data_root import default_data_root
from chainrule_server.data.object_storage import default_object_storage
from chainrule_server.errors import InvalidSpec
from chainrule_server.offline.answering import answer
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob


def main() -> int:
    """Write the example; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m chainrule_server.offline.example_row")
    parser.add_argument("--row", type=int, default=0)
    parser.add_argument("--parameters", type=Path)
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    arguments = parser.parse_args()

    def answer_to(spec: job_pb2.JobSpec) -> dict[str, Any]:
        job = prepare(spec, data_root=arguments.data_root, object_storage=default_object_storage())
        return example(job, row=arguments.row, parameters_path=arguments.parameters)

    return answer(job_pb2.JobSpec, answer_to)


def example(job: PreparedJob, *, row: int, parameters_path: Path | None) -> dict[str, Any]:
    """The row as the model sees it, and the parameters of the file, or the first ones. Raises InvalidSpec."""
    row_count = job.row_count
    if not 0 <= row < row_count:
        raise InvalidSpec([("--row", f"there is no row {row}; the data has rows 0 to {row_count - 1}")])
    x, y = job.rows.row(row)
    if parameters_path is None:
        state = job.first_state()
        parameters = job.model.layout.views(state.parameters) | job.model.statistics.views(state.statistics)
    else:
        parameters = read_parameters(parameters_path, job.model)
    return {
        "feature_count": job.feature_count,
        "class_count": job.class_count,
        "row_count": row_count,
        "x": _encoded(x),
        "y": _encoded(y),
        # Running statistics of batch normalization too: they are part of a trained model.
        "parameters": {name: _encoded(value) for name, value in parameters.items()},
    }


def read_parameters(path: Path, model: Model) -> dict[str, NDArray[Any]]:
    """The parameters, float32, and running statistics, float64, of a safetensors file.

    Raises InvalidSpec where it can't be read or doesn't fit the job."""
    expected: list[tuple[Parameter, type[np.floating[Any]]]] = [
        (parameter, np.float32) for parameter in model.layout.parameters
    ]
    expected += [(statistic, np.float64) for statistic in model.statistics.parameters]
    found = {}
    problems = []
    try:
        if not path.is_file():
            raise InvalidSpec([("--parameters", f"{path}: there is no such file")])
        with safe_open(path, framework="numpy") as file:
            there = set(file.keys())
            for parameter, kind in expected:
                shape = tuple(file.get_slice(parameter.name).get_shape()) if parameter.name in there else None
                if shape is None:
                    known = ", ".join(sorted(there)[:10]) or "nothing"
                    problems.append(f"{path} holds no parameter '{parameter.name}'; it holds {known}")
                elif shape != parameter.shape:
                    problems.append(
                        f"'{parameter.name}' has shape {shape} in {path}, but {parameter.shape} in the job; "
                        "take the model of this job"
                    )
                else:
                    value = np.asarray(file.get_tensor(parameter.name))
                    if value.dtype != kind:
                        problems.append(f"'{parameter.name}' is {value.dtype} in {path}, but must be {np.dtype(kind)}")
                    found[parameter.name] = value
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise InvalidSpec([("--parameters", f"{path}: can't be read as a safetensors file: {error}")]) from error
    if problems:
        raise InvalidSpec([("--parameters", problem) for problem in problems])
    return found


def _encoded(value: NDArray[Any] | np.generic) -> dict[str, Any]:
    array = np.asarray(value)
    kind = "<i8" if array.dtype.kind in "iu" else f"<f{array.dtype.itemsize}"
    content = array.astype(kind).tobytes()
    return {"shape": list(array.shape), "dtype": kind, "base64": base64.b64encode(content).decode()}


if __name__ == "__main__":
    sys.exit(main())
