"""A model as an ONNX graph (opset 18): raw features in, predictions in the target's own unit or names of classes out.

Inputs: where all features are numbers, one matrix `features`, (rows, n) float64, in the model's order; else one column
for each feature, (rows, 1), under its name: numbers as float64, categories as texts. A missing number is NaN, a missing
category an empty text. Outputs: `outputs`, what the formula gives (float32); `prediction`, (rows,) float64, in the
target's unit, where the target is a number; `class_name`, (rows,), where it is a class.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.errors import ModelFileError
from chainrule.export.model import ModelFile
from chainrule.export.onnx_operations import RULES
from chainrule.export.onnx_writer import Writer

if TYPE_CHECKING:
    from chainrule_engine.graph import Graph, Node

OPSET = 18
ML_OPSET = 3
# What goes with OPSET: readers of that time take it.
IR_VERSION = 8
ROWS = "rows"
OUTPUTS = ("outputs", "prediction", "class_name")


def write_onnx(model: ModelFile, path: Path) -> None:
    """Write the file. Raises ModelFileError, also without the package onnx, and OSError."""
    path.write_bytes(onnx_model(model).SerializeToString())


def onnx_model(model: ModelFile) -> Any:
    """The onnx.ModelProto, checked by `onnx.checker`. Raises ModelFileError where a part has no form in ONNX."""
    try:
        from onnx import TensorProto, checker, helper
    except ImportError:
        raise ModelFileError("ONNX needs the package onnx: pip install 'chainrule[onnx]'") from None
    prediction = model.model.prediction
    if prediction is None:
        raise ModelFileError("the job has a loss and no prediction, so there is nothing that ONNX could compute")
    if any(node.name != "x" for node in prediction.inputs):
        raise ModelFileError("the prediction uses y, the target itself; only a prediction from x can be exported")
    writer = Writer()
    inputs, x = _features(writer, model.preprocessing["features"])
    root = prediction.root
    raw = computed(writer, prediction, dict(model.arrays), {"x": x})
    if not root.batched:
        raw = _for_each_row(writer, raw, x, root.shape)
    outputs = [_named(writer, raw, "outputs", TensorProto.FLOAT, root.shape)]
    target = model.preprocessing["target"]
    if target["classes"] is None and not root.shape:
        outputs.append(_named(writer, _in_unit(writer, raw, target), "prediction", TensorProto.DOUBLE, ()))
    elif (found := _class_name(writer, raw, target, root.shape)) is not None:
        outputs.append(_named(writer, found, "class_name", TensorProto.STRING, ()))
    graph = helper.make_graph(writer.nodes, model.spec.name, inputs, outputs, writer.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    if any(node.domain for node in writer.nodes):
        opsets.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    made = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="chainrule")
    names = [each["name"] for each in model.preprocessing["features"]]
    helper.set_model_props(made, dict(model.metadata) | {"features": "\n".join(names)})
    checker.check_model(made, full_check=True)
    return made


def computed(writer: Writer, graph: Graph, arrays: dict[str, Any], values: dict[str, str]) -> str:
    """The name of the root's value. arrays: parameters and running statistics. values: the names of the inputs'.

    Raises ModelFileError for an operation without a rule."""
    names: dict[Node, str] = {}
    for node in graph.nodes:
        if node.operation == "constant":
            names[node] = writer.number(node.value)
        elif node.operation == "input":
            names[node] = values[node.name]
        elif node.is_leaf:
            names[node] = writer.array(np.ascontiguousarray(arrays[node.name], np.float32).reshape(node.shape))
        elif node.operation not in RULES:
            raise ModelFileError(f"the operation {node.operation!r} has no form in ONNX (opset {OPSET}) here")
        else:
            operands = _aligned(writer, node, [names[each] for each in node.operands])
            names[node] = RULES[node.operation](writer, node, *operands)
    return names[graph.root]


def _aligned(writer: Writer, node: Node, values: list[str]) -> list[str]:
    """As the engine aligns them: a number for each row goes with its row's elements; over axes all have the rows."""
    from chainrule_engine.operations import OPERATIONS, Axiswise, Elementwise

    operation, pairs = OPERATIONS[node.operation], list(zip(node.operands, values, strict=True))
    if isinstance(operation, Elementwise) and node.shape:
        axes = list(range(1, len(node.shape) + 1))
        return [
            writer("Unsqueeze", value, writer.integers(axes)) if operand.batched and not operand.shape else value
            for operand, value in pairs
        ]
    if isinstance(operation, Axiswise) and node.batched:
        rows = next(value for operand, value in pairs if operand.batched)
        return [
            value if operand.batched else _for_each_row(writer, value, rows, operand.shape) for operand, value in pairs
        ]
    return values


def _for_each_row(writer: Writer, value: str, rows: str, shape: tuple[int, ...]) -> str:
    """A value of that shape, repeated as often as `rows` has rows."""
    count = writer("Shape", rows, start=0, end=1)
    return writer("Expand", value, writer("Concat", count, writer.integers(list(shape)), axis=0) if shape else count)


def _named(writer: Writer, value: str, name: str, kind: int, shape: tuple[int, ...]) -> Any:
    """An output of the graph under a name of its own."""
    from onnx import helper

    writer.nodes.append(helper.make_node("Identity", [value], [name]))
    return helper.make_tensor_value_info(name, kind, [ROWS, *shape])


def _features(writer: Writer, encodings: list[dict[str, Any]]) -> tuple[list[Any], str]:
    """The inputs, and the name of x: (rows, width) float32."""
    from onnx import TensorProto, helper

    if all(each["kind"] == "number" for each in encodings):
        inputs = [helper.make_tensor_value_info("features", TensorProto.DOUBLE, [ROWS, len(encodings)])]
        return inputs, _numbers(writer, "features", encodings)
    inputs, parts = [], []
    for each in encodings:
        name, is_number = each["name"], each["kind"] == "number"
        if name in OUTPUTS:
            raise ModelFileError(f"a column is called {name!r}, as an output of the ONNX graph is; rename the column")
        kind = TensorProto.DOUBLE if is_number else TensorProto.STRING
        inputs.append(helper.make_tensor_value_info(name, kind, [ROWS, 1]))
        parts.append(_numbers(writer, name, [each]) if is_number else _category(writer, each))
    return inputs, writer("Concat", *parts, axis=1)


def _numbers(writer: Writer, name: str, encodings: list[dict[str, Any]]) -> str:
    """(value − mean) / scale in float64, as a server does it, then float32."""
    from onnx import TensorProto

    def row(key: str, default: float) -> str:
        return writer.array(np.array([[default if each[key] is None else each[key] for each in encodings]], np.float64))

    if any(each["fill"] is not None for each in encodings):
        name = writer("Where", writer("IsNaN", name), row("fill", np.nan), name)
    if any(each["mean"] is not None for each in encodings):
        name = writer("Div", writer("Sub", name, row("mean", 0.0)), row("scale", 1.0))
    return writer("Cast", name, to=TensorProto.FLOAT)


def _category(writer: Writer, encoding: dict[str, Any]) -> str:
    """1 in the place of the category, and 0 in all places for one that isn't known."""
    count = len(encoding["categories"])
    place_of = {category: place for place, category in enumerate(encoding["categories"])}
    if encoding["fill"] is not None:
        place_of.setdefault("", place_of[encoding["fill"]])
    places = writer(
        "LabelEncoder",
        writer("Reshape", encoding["name"], writer.integers([-1])),
        domain="ai.onnx.ml",
        keys_strings=list(place_of),
        values_int64s=list(place_of.values()),
        default_int64=count,
    )
    # One place more for those that aren't known, cut off.
    ones = writer("OneHot", places, writer.integer(count + 1), writer.array(np.array([0, 1], np.float32)), axis=-1)
    return writer("Slice", ones, writer.integers([0]), writer.integers([count]), writer.integers([1]))


def _in_unit(writer: Writer, raw: str, target: dict[str, Any]) -> str:
    """The prediction in the target's own unit, float64."""
    from onnx import TensorProto

    wide = writer("Cast", raw, to=TensorProto.DOUBLE)
    if target["mean"] is None:
        return wide
    return writer("Add", writer("Mul", wide, writer.wide(target["scale"])), writer.wide(target["mean"]))


def _class_name(writer: Writer, raw: str, target: dict[str, Any], shape: tuple[int, ...]) -> str | None:
    """The name of each row's class; None where the target is no class, or the outputs have another shape."""
    from onnx import TensorProto

    if target["classes"] is None or shape != (() if target["labels"] is not None else (len(target["classes"]),)):
        return None
    if target["labels"] is None:
        place, classes = writer("ArgMax", raw, axis=1, keepdims=0), target["classes"]
    else:
        labels = np.array(target["labels"], np.float64)
        order = labels.argsort()
        column = writer("Unsqueeze", writer("Cast", raw, to=TensorProto.DOUBLE), writer.integers([1]))
        distance = writer("Abs", writer("Sub", column, writer.array(labels[order])))
        # Of two at the same distance the smaller label counts.
        place, classes = writer("ArgMin", distance, axis=1, keepdims=0), [target["classes"][each] for each in order]
    return writer("Gather", writer.texts(tuple(classes)), place, axis=0)
