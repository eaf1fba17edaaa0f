"""A model: the formulas of a job as graphs, and where its parameters lie in the flat vector."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.builder import MAXIMUM_ELEMENTS, GraphBuilder
from chainrule_engine.definitions import Definition, Definitions
from chainrule_engine.errors import FormulaError, ShapeMismatch, ValueMismatch
from chainrule_engine.evaluation import evaluation_roots
from chainrule_engine.formula import FUNCTION_LETTERS, NAME, parse, same_name
from chainrule_engine.graph import Graph, Node
from chainrule_engine.operations import FUNCTIONS, OPERATIONS
from chainrule_engine.parameters import Parameter, ParameterLayout
from chainrule_engine.text_order import in_text_order

_FUNCTION_LETTERS = {"φ": "phi", "ϕ": "phi", "ψ": "psi"}
# What letters are called that are no function's own name.
_SPELT = {"σ": "sigma"}


@dataclass(frozen=True)
class Input:
    """An input of the formula, with a value for each row. shape: of one example.

    class_count: set where the input holds classes 0 … class_count − 1, which are not differentiated."""

    name: str
    shape: tuple[int, ...]
    class_count: int | None = None


@dataclass(frozen=True)
class Model:
    """What a job computes.

    loss: the graph that is trained. prediction, evaluation_loss: as they are evaluated, without dropout and with
    running statistics. statistics: the layout of those, in a flat float64 vector; empty without batch_norm.
    normalized: for each batch_norm, the node of `loss` whose rows it looks at."""

    layout: ParameterLayout
    inputs: tuple[Input, ...]
    loss: Graph
    evaluation_loss: Graph
    prediction: Graph | None
    statistics: ParameterLayout
    normalized: tuple[Node, ...]

    @classmethod
    def build(
        cls,
        *,
        loss: str,
        prediction: str | None = None,
        functions: Mapping[str, str] | None = None,
        definitions: Sequence[Definition] = (),
        parameters: Sequence[Parameter],
        inputs: Sequence[Input],
    ) -> Model:
        """Read the formulas. In `loss`, the name `prediction` stands for the prediction formula.

        functions: such as {"phi": "sigmoid"}. definitions: parts with names, each of which may use those before it.
        Raises FormulaError or ShapeMismatch, whose `field` is 'loss', 'prediction', 'functions.phi', 'parameters.V1' or
        'definitions.hidden', and whose `column` counts from 1."""
        builder = GraphBuilder(_checked_functions(functions or {}))
        taken = _declare_leaves(builder, parameters, inputs)
        defined = Definitions(definitions, builder, taken=taken, has_prediction=prediction is not None)
        defined.before_prediction()
        predicted = None
        if prediction is not None:
            builder.begin("prediction", prediction)
            predicted = parse(prediction, builder, field="prediction", may_have_head=True).node
            builder.declare("prediction", predicted)
            defined.after_prediction()
        builder.begin("loss", loss)
        root = parse(loss, builder, field="loss", may_have_head=True).node
        if root.shape:
            raise ShapeMismatch(
                f"the loss has shape {root.shape}, but a loss is one number for each example; "
                "write sum(…) or mean(…) around it",
                field="loss",
                column=1,
            )
        if root.class_count is not None or (predicted is not None and predicted.class_count is not None):
            raise FormulaError("a class cannot be the whole formula", field="loss", column=1)
        if definitions:
            # Without definitions the nodes are in the order of the text already.
            read = [root] if predicted is None else [predicted, root]
            *others, root = in_text_order(
                builder.nodes, read, first=builder.first, titles=builder.call_titles | builder.titles
            )
            predicted = others[0] if others else None
        roots = [root] if predicted is None else [root, predicted]
        evaluated, statistics, normalized = evaluation_roots(roots)
        return cls(
            layout=ParameterLayout.of(parameters),
            inputs=tuple(inputs),
            loss=Graph.of(root),
            evaluation_loss=Graph.of(evaluated[0]),
            prediction=None if predicted is None else Graph.of(evaluated[1]),
            statistics=statistics,
            normalized=normalized,
        )

    def prediction_inputs(self, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The inputs of the prediction by name, from one array or a mapping. Raises ValueMismatch."""
        if self.prediction is None:
            raise ValueMismatch("the model has no prediction; give the job a prediction formula")
        names = [node.name for node in self.prediction.inputs]
        if isinstance(x, Mapping):
            missing = [name for name in names if name not in x]
            if missing:
                raise ValueMismatch(f"the prediction needs the inputs {', '.join(names)}; {missing[0]} is missing")
            return {name: np.asarray(x[name]) for name in names}
        if len(names) > 1:
            raise ValueMismatch(f"the prediction needs the inputs {', '.join(names)}, but one array was given")
        return {names[0]: np.asarray(x)} if names else {}


def _checked_functions(functions: Mapping[str, str]) -> dict[str, str]:
    checked = {}
    for letter, target in functions.items():
        name = _FUNCTION_LETTERS.get(letter, letter)
        field = f"functions.{letter}"
        if not re.fullmatch(NAME, name) or name in FUNCTIONS:
            raise FormulaError(f"'{letter}' cannot be the name of a function of yours", field=field)
        operation = OPERATIONS.get(FUNCTIONS.get(str(target), ""))
        single = {alias for alias, known in FUNCTIONS.items() if OPERATIONS[known].operand_count == 1}
        if operation is None or target not in single:
            raise FormulaError(f"'{target}' is no function of one operand; there are {_listed(single)}", field=field)
        checked[name] = str(target)
    return checked


def _declare_leaves(builder: GraphBuilder, parameters: Sequence[Parameter], inputs: Sequence[Input]) -> set[str]:
    """Declare parameters and inputs, and return the names that are taken then."""
    taken: set[str] = {"prediction"}
    total = 0
    leaves: tuple[Parameter | Input, ...] = (*parameters, *inputs)
    for leaf in leaves:
        kind = "parameter" if isinstance(leaf, Parameter) else "input"
        field = f"{kind}s.{leaf.name}"
        builder.begin(field, "")
        for letter, function in FUNCTION_LETTERS.items():
            if letter in leaf.name:
                spelt = leaf.name.replace(letter, _SPELT.get(letter, function))
                raise FormulaError(
                    f"'{letter}' is the function {function} wherever it stands in a formula, so no {kind} can have it "
                    f"in its name; write it out, such as '{spelt}'",
                    field=field,
                )
        if not re.fullmatch(NAME, leaf.name):
            raise FormulaError(
                f"'{leaf.name}' is no name; a name has letters, digits and _, and starts with a letter",
                field=field,
            )
        if same_name(leaf.name) in taken or builder.is_function(leaf.name):
            raise FormulaError(f"the name '{leaf.name}' is taken", field=field)
        taken.add(same_name(leaf.name))
        if any(not isinstance(length, int) or length < 1 for length in leaf.shape):
            raise ShapeMismatch(f"shape {tuple(leaf.shape)} must consist of whole numbers from 1 up", field=field)
        builder.check_size(tuple(leaf.shape), None)
        if isinstance(leaf, Parameter):
            total += math.prod(leaf.shape)
            if total > MAXIMUM_ELEMENTS:
                raise ShapeMismatch(
                    f"the parameters have {total} elements so far; at most {MAXIMUM_ELEMENTS} are possible", field=field
                )
            node = builder.leaf("parameter", leaf.name, tuple(leaf.shape), batched=False)
        else:
            if leaf.class_count is not None and (leaf.shape or leaf.class_count < 1):
                raise ShapeMismatch("an input of classes is a scalar, with at least one class", field=field)
            node = builder.leaf("input", leaf.name, tuple(leaf.shape), batched=True, class_count=leaf.class_count)
        builder.declare(leaf.name, node)
    return taken


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
