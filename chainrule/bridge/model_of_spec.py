"""From a job's spec to the engine's model. Server and worker build the same model from the same spec."""

from __future__ import annotations

from chainrule.v1 import job_pb2
from chainrule_engine.definitions import Definition
from chainrule_engine.errors import FormulaError
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter


def build_model(spec: job_pb2.JobSpec, *, feature_count: int, class_count: int) -> Model:
    """The model of a spec for rows of `feature_count` features; class_count 0 means that y is a number.

    Raises FormulaError with a field below `model`, such as 'loss' or 'parameters.V1'."""
    sizes = {"d": feature_count, "k": class_count}
    return Model.build(
        loss=spec.model.loss,
        prediction=spec.model.prediction or None,
        functions={"phi": spec.model.phi} if spec.model.phi else {},
        definitions=[Definition(each.name, each.formula) for each in spec.model.definitions],
        parameters=[
            Parameter(
                parameter.name,
                tuple(_dimension(text, sizes, parameter.name) for text in parameter.shape),
                parameter.initializer or None,
                parameter.frozen,
            )
            for parameter in spec.model.parameters
        ],
        inputs=[Input("x", (feature_count,)), Input("y", (), class_count or None)],
    )


def _dimension(text: str, sizes: dict[str, int], name: str) -> int:
    if text in sizes:
        if sizes[text]:
            return sizes[text]
        raise FormulaError("'k' needs a data set of classes (and no data.labels)", field=f"parameters.{name}")
    if text.isascii() and text.isdigit() and len(text) <= 12 and int(text) >= 1:
        return int(text)
    raise FormulaError(
        f"a shape consists of whole numbers of at least 1, 'd' and 'k', got {text!r}", field=f"parameters.{name}"
    )
