from chainrule.v1 import model_pb2 as _model_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListCheckpointsRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("job_id", "checkpoints", "last_step", "best_step")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    BEST_STEP_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    checkpoints: _containers.RepeatedCompositeFieldContainer[_model_pb2.Checkpoint]
    last_step: int
    best_step: int
    def __init__(self, job_id: _Optional[str] = ..., checkpoints: _Optional[_Iterable[_Union[_model_pb2.Checkpoint, _Mapping]]] = ..., last_step: _Optional[int] = ..., best_step: _Optional[int] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("job_id", "rows", "columns", "version", "strict")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    rows: _containers.RepeatedCompositeFieldContainer[_struct_pb2.ListValue]
    columns: _containers.RepeatedScalarFieldContainer[str]
    version: _model_pb2.ModelVersion
    strict: bool
    def __init__(self, job_id: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[_struct_pb2.ListValue, _Mapping]]] = ..., columns: _Optional[_Iterable[str]] = ..., version: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ..., strict: _Optional[bool] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("job_id", "step", "predictions", "classes", "unknown_categories")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    step: int
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    classes: _containers.RepeatedScalarFieldContainer[str]
    unknown_categories: _containers.RepeatedCompositeFieldContainer[UnknownCategories]
    def __init__(self, job_id: _Optional[str] = ..., step: _Optional[int] = ..., predictions: _Optional[_Iterable[_Union[Prediction, _Mapping]]] = ..., classes: _Optional[_Iterable[str]] = ..., unknown_categories: _Optional[_Iterable[_Union[UnknownCategories, _Mapping]]] = ...) -> None: ...

class UnknownCategories(_message.Message):
    __slots__ = ("column", "row_count", "example", "similar")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    SIMILAR_FIELD_NUMBER: _ClassVar[int]
    column: str
    row_count: int
    example: str
    similar: str
    def __init__(self, column: _Optional[str] = ..., row_count: _Optional[int] = ..., example: _Optional[str] = ..., similar: _Optional[str] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("value", "class_name", "outputs")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    value: float
    class_name: str
    outputs: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, value: _Optional[float] = ..., class_name: _Optional[str] = ..., outputs: _Optional[_Iterable[float]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("job_id", "row", "own", "shard", "max_values", "version")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    row: int
    own: Example
    shard: int
    max_values: int
    version: _model_pb2.ModelVersion
    def __init__(self, job_id: _Optional[str] = ..., row: _Optional[int] = ..., own: _Optional[_Union[Example, _Mapping]] = ..., shard: _Optional[int] = ..., max_values: _Optional[int] = ..., version: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ...) -> None: ...

class Example(_message.Message):
    __slots__ = ("features", "target", "columns")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    features: _struct_pb2.ListValue
    target: _struct_pb2.Value
    columns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, features: _Optional[_Union[_struct_pb2.ListValue, _Mapping]] = ..., target: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., columns: _Optional[_Iterable[str]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("job_id", "step", "nodes", "prediction_node", "rows", "unknown_categories")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_NODE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    step: int
    nodes: _containers.RepeatedCompositeFieldContainer[ExplainedNode]
    prediction_node: int
    rows: _containers.RepeatedScalarFieldContainer[int]
    unknown_categories: _containers.RepeatedCompositeFieldContainer[UnknownCategories]
    def __init__(self, job_id: _Optional[str] = ..., step: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[ExplainedNode, _Mapping]]] = ..., prediction_node: _Optional[int] = ..., rows: _Optional[_Iterable[int]] = ..., unknown_categories: _Optional[_Iterable[_Union[UnknownCategories, _Mapping]]] = ...) -> None: ...

class ExplainReductionRequest(_message.Message):
    __slots__ = ("job_id", "max_values", "version")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    max_values: int
    version: _model_pb2.ModelVersion
    def __init__(self, job_id: _Optional[str] = ..., max_values: _Optional[int] = ..., version: _Optional[_Union[_model_pb2.ModelVersion, _Mapping]] = ...) -> None: ...

class ExplainReductionResponse(_message.Message):
    __slots__ = ("job_id", "step", "row_count", "loss", "parameters", "norm", "tree")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    step: int
    row_count: int
    loss: float
    parameters: _containers.RepeatedCompositeFieldContainer[ParameterGradient]
    norm: float
    tree: _containers.RepeatedCompositeFieldContainer[SubtreeGradient]
    def __init__(self, job_id: _Optional[str] = ..., step: _Optional[int] = ..., row_count: _Optional[int] = ..., loss: _Optional[float] = ..., parameters: _Optional[_Iterable[_Union[ParameterGradient, _Mapping]]] = ..., norm: _Optional[float] = ..., tree: _Optional[_Iterable[_Union[SubtreeGradient, _Mapping]]] = ...) -> None: ...

class ParameterGradient(_message.Message):
    __slots__ = ("name", "shape", "gradient", "norm", "frozen")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    gradient: TensorValue
    norm: float
    frozen: bool
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., gradient: _Optional[_Union[TensorValue, _Mapping]] = ..., norm: _Optional[float] = ..., frozen: _Optional[bool] = ...) -> None: ...

class SubtreeGradient(_message.Message):
    __slots__ = ("first_shard", "shard_count", "row_count", "loss", "norm")
    FIRST_SHARD_FIELD_NUMBER: _ClassVar[int]
    SHARD_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    first_shard: int
    shard_count: int
    row_count: int
    loss: float
    norm: float
    def __init__(self, first_shard: _Optional[int] = ..., shard_count: _Optional[int] = ..., row_count: _Optional[int] = ..., loss: _Optional[float] = ..., norm: _Optional[float] = ...) -> None: ...

class ExplainedNode(_message.Message):
    __slots__ = ("operation", "symbol", "name", "text", "rule", "shape", "forward", "backward", "operands", "title")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FIELD_NUMBER: _ClassVar[int]
    BACKWARD_FIELD_NUMBER: _ClassVar[int]
    OPERANDS_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    operation: str
    symbol: str
    name: str
    text: str
    rule: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    forward: TensorValue
    backward: TensorValue
    operands: _containers.RepeatedCompositeFieldContainer[Operand]
    title: str
    def __init__(self, operation: _Optional[str] = ..., symbol: _Optional[str] = ..., name: _Optional[str] = ..., text: _Optional[str] = ..., rule: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., forward: _Optional[_Union[TensorValue, _Mapping]] = ..., backward: _Optional[_Union[TensorValue, _Mapping]] = ..., operands: _Optional[_Iterable[_Union[Operand, _Mapping]]] = ..., title: _Optional[str] = ...) -> None: ...

class Operand(_message.Message):
    __slots__ = ("node", "letter", "partial", "contribution", "partial_value")
    NODE_FIELD_NUMBER: _ClassVar[int]
    LETTER_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_VALUE_FIELD_NUMBER: _ClassVar[int]
    node: int
    letter: str
    partial: str
    contribution: str
    partial_value: TensorValue
    def __init__(self, node: _Optional[int] = ..., letter: _Optional[str] = ..., partial: _Optional[str] = ..., contribution: _Optional[str] = ..., partial_value: _Optional[_Union[TensorValue, _Mapping]] = ...) -> None: ...

class TensorValue(_message.Message):
    __slots__ = ("value_count", "mean", "minimum", "maximum", "values")
    VALUE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    value_count: int
    mean: float
    minimum: float
    maximum: float
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, value_count: _Optional[int] = ..., mean: _Optional[float] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...
