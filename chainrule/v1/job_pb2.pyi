import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_PAUSED: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class WaitingReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAITING_REASON_UNSPECIFIED: _ClassVar[WaitingReason]
    WAITING_REASON_TURN: _ClassVar[WaitingReason]
    WAITING_REASON_WORKERS: _ClassVar[WaitingReason]
    WAITING_REASON_SHARDS: _ClassVar[WaitingReason]
    WAITING_REASON_PARTIAL_SUMS: _ClassVar[WaitingReason]
    WAITING_REASON_STORAGE: _ClassVar[WaitingReason]
    WAITING_REASON_DATA: _ClassVar[WaitingReason]

class LossReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOSS_REASON_UNSPECIFIED: _ClassVar[LossReason]
    LOSS_REASON_CONNECTION_LOST: _ClassVar[LossReason]
    LOSS_REASON_LEASE_EXPIRED: _ClassVar[LossReason]
    LOSS_REASON_STOPPED: _ClassVar[LossReason]
    LOSS_REASON_FAILED: _ClassVar[LossReason]
    LOSS_REASON_REFUSED: _ClassVar[LossReason]
    LOSS_REASON_PROCESS_ENDED: _ClassVar[LossReason]

class MoveReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MOVE_REASON_UNSPECIFIED: _ClassVar[MoveReason]
    MOVE_REASON_SLOW: _ClassVar[MoveReason]
    MOVE_REASON_LATE: _ClassVar[MoveReason]
    MOVE_REASON_EVENED: _ClassVar[MoveReason]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_PAUSED: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
WAITING_REASON_UNSPECIFIED: WaitingReason
WAITING_REASON_TURN: WaitingReason
WAITING_REASON_WORKERS: WaitingReason
WAITING_REASON_SHARDS: WaitingReason
WAITING_REASON_PARTIAL_SUMS: WaitingReason
WAITING_REASON_STORAGE: WaitingReason
WAITING_REASON_DATA: WaitingReason
LOSS_REASON_UNSPECIFIED: LossReason
LOSS_REASON_CONNECTION_LOST: LossReason
LOSS_REASON_LEASE_EXPIRED: LossReason
LOSS_REASON_STOPPED: LossReason
LOSS_REASON_FAILED: LossReason
LOSS_REASON_REFUSED: LossReason
LOSS_REASON_PROCESS_ENDED: LossReason
MOVE_REASON_UNSPECIFIED: MoveReason
MOVE_REASON_SLOW: MoveReason
MOVE_REASON_LATE: MoveReason
MOVE_REASON_EVENED: MoveReason

class JobSpec(_message.Message):
    __slots__ = ("name", "model", "data", "training", "labels", "priority")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: ModelSpec
    data: DataSpec
    training: TrainingSpec
    labels: _containers.ScalarMap[str, str]
    priority: int
    def __init__(self, name: _Optional[str] = ..., model: _Optional[_Union[ModelSpec, _Mapping]] = ..., data: _Optional[_Union[DataSpec, _Mapping]] = ..., training: _Optional[_Union[TrainingSpec, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., priority: _Optional[int] = ...) -> None: ...

class ModelSpec(_message.Message):
    __slots__ = ("prediction", "loss", "phi", "parameters", "start", "definitions")
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    PHI_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    DEFINITIONS_FIELD_NUMBER: _ClassVar[int]
    prediction: str
    loss: str
    phi: str
    parameters: _containers.RepeatedCompositeFieldContainer[Parameter]
    start: ModelStart
    definitions: _containers.RepeatedCompositeFieldContainer[Definition]
    def __init__(self, prediction: _Optional[str] = ..., loss: _Optional[str] = ..., phi: _Optional[str] = ..., parameters: _Optional[_Iterable[_Union[Parameter, _Mapping]]] = ..., start: _Optional[_Union[ModelStart, _Mapping]] = ..., definitions: _Optional[_Iterable[_Union[Definition, _Mapping]]] = ...) -> None: ...

class Definition(_message.Message):
    __slots__ = ("name", "formula")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORMULA_FIELD_NUMBER: _ClassVar[int]
    name: str
    formula: str
    def __init__(self, name: _Optional[str] = ..., formula: _Optional[str] = ...) -> None: ...

class ModelStart(_message.Message):
    __slots__ = ("job", "model", "parameters", "sha256", "preprocessing")
    JOB_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    job: str
    model: str
    parameters: _containers.RepeatedScalarFieldContainer[str]
    sha256: str
    preprocessing: TakenPreprocessing
    def __init__(self, job: _Optional[str] = ..., model: _Optional[str] = ..., parameters: _Optional[_Iterable[str]] = ..., sha256: _Optional[str] = ..., preprocessing: _Optional[_Union[TakenPreprocessing, _Mapping]] = ...) -> None: ...

class TakenPreprocessing(_message.Message):
    __slots__ = ("features", "target")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    features: bool
    target: bool
    def __init__(self, features: _Optional[bool] = ..., target: _Optional[bool] = ...) -> None: ...

class Parameter(_message.Message):
    __slots__ = ("name", "shape", "initializer", "frozen")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    INITIALIZER_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[str]
    initializer: str
    frozen: bool
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[str]] = ..., initializer: _Optional[str] = ..., frozen: _Optional[bool] = ...) -> None: ...

class DataSpec(_message.Message):
    __slots__ = ("uri", "validation_fraction", "standardize", "labels", "target", "features", "exclude", "categories", "missing", "csv", "missing_markers", "missing_target", "fold")
    URI_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FRACTION_FIELD_NUMBER: _ClassVar[int]
    STANDARDIZE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    CSV_FIELD_NUMBER: _ClassVar[int]
    MISSING_MARKERS_FIELD_NUMBER: _ClassVar[int]
    MISSING_TARGET_FIELD_NUMBER: _ClassVar[int]
    FOLD_FIELD_NUMBER: _ClassVar[int]
    uri: str
    validation_fraction: float
    standardize: Standardization
    labels: _containers.RepeatedScalarFieldContainer[float]
    target: str
    features: _containers.RepeatedScalarFieldContainer[str]
    exclude: _containers.RepeatedScalarFieldContainer[str]
    categories: _containers.RepeatedScalarFieldContainer[str]
    missing: str
    csv: CsvFormat
    missing_markers: _containers.RepeatedScalarFieldContainer[str]
    missing_target: str
    fold: Fold
    def __init__(self, uri: _Optional[str] = ..., validation_fraction: _Optional[float] = ..., standardize: _Optional[_Union[Standardization, _Mapping]] = ..., labels: _Optional[_Iterable[float]] = ..., target: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ..., exclude: _Optional[_Iterable[str]] = ..., categories: _Optional[_Iterable[str]] = ..., missing: _Optional[str] = ..., csv: _Optional[_Union[CsvFormat, _Mapping]] = ..., missing_markers: _Optional[_Iterable[str]] = ..., missing_target: _Optional[str] = ..., fold: _Optional[_Union[Fold, _Mapping]] = ...) -> None: ...

class Fold(_message.Message):
    __slots__ = ("number", "count")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    number: int
    count: int
    def __init__(self, number: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class CsvFormat(_message.Message):
    __slots__ = ("delimiter", "decimal_point", "numbers")
    DELIMITER_FIELD_NUMBER: _ClassVar[int]
    DECIMAL_POINT_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    delimiter: str
    decimal_point: str
    numbers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, delimiter: _Optional[str] = ..., decimal_point: _Optional[str] = ..., numbers: _Optional[_Iterable[str]] = ...) -> None: ...

class Standardization(_message.Message):
    __slots__ = ("features", "target")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    features: bool
    target: bool
    def __init__(self, features: _Optional[bool] = ..., target: _Optional[bool] = ...) -> None: ...

class TrainingSpec(_message.Message):
    __slots__ = ("epochs", "batch_size", "shards", "seed", "optimizer", "schedule", "penalties", "clipping", "early_stopping", "min_workers", "precision", "backend", "checkpoint_every_steps", "max_workers", "require_identical_workers", "stragglers")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    PENALTIES_FIELD_NUMBER: _ClassVar[int]
    CLIPPING_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_FIELD_NUMBER: _ClassVar[int]
    MIN_WORKERS_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_WORKERS_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_IDENTICAL_WORKERS_FIELD_NUMBER: _ClassVar[int]
    STRAGGLERS_FIELD_NUMBER: _ClassVar[int]
    epochs: int
    batch_size: int
    shards: int
    seed: int
    optimizer: Optimizer
    schedule: Schedule
    penalties: Penalties
    clipping: Clipping
    early_stopping: EarlyStopping
    min_workers: int
    precision: str
    backend: str
    checkpoint_every_steps: int
    max_workers: int
    require_identical_workers: bool
    stragglers: Stragglers
    def __init__(self, epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., shards: _Optional[int] = ..., seed: _Optional[int] = ..., optimizer: _Optional[_Union[Optimizer, _Mapping]] = ..., schedule: _Optional[_Union[Schedule, _Mapping]] = ..., penalties: _Optional[_Union[Penalties, _Mapping]] = ..., clipping: _Optional[_Union[Clipping, _Mapping]] = ..., early_stopping: _Optional[_Union[EarlyStopping, _Mapping]] = ..., min_workers: _Optional[int] = ..., precision: _Optional[str] = ..., backend: _Optional[str] = ..., checkpoint_every_steps: _Optional[int] = ..., max_workers: _Optional[int] = ..., require_identical_workers: _Optional[bool] = ..., stragglers: _Optional[_Union[Stragglers, _Mapping]] = ...) -> None: ...

class Stragglers(_message.Message):
    __slots__ = ("factor",)
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    factor: float
    def __init__(self, factor: _Optional[float] = ...) -> None: ...

class Optimizer(_message.Message):
    __slots__ = ("name", "learning_rate", "momentum", "decay", "beta1", "beta2", "epsilon", "weight_decay")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    DECAY_FIELD_NUMBER: _ClassVar[int]
    BETA1_FIELD_NUMBER: _ClassVar[int]
    BETA2_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    name: str
    learning_rate: float
    momentum: float
    decay: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    def __init__(self, name: _Optional[str] = ..., learning_rate: _Optional[float] = ..., momentum: _Optional[float] = ..., decay: _Optional[float] = ..., beta1: _Optional[float] = ..., beta2: _Optional[float] = ..., epsilon: _Optional[float] = ..., weight_decay: _Optional[float] = ...) -> None: ...

class Schedule(_message.Message):
    __slots__ = ("name", "warmup_steps", "every_steps", "factor", "minimum_factor", "peak_fraction", "start_factor", "end_factor", "patience_epochs", "min_delta")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FACTOR_FIELD_NUMBER: _ClassVar[int]
    PEAK_FRACTION_FIELD_NUMBER: _ClassVar[int]
    START_FACTOR_FIELD_NUMBER: _ClassVar[int]
    END_FACTOR_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    MIN_DELTA_FIELD_NUMBER: _ClassVar[int]
    name: str
    warmup_steps: int
    every_steps: int
    factor: float
    minimum_factor: float
    peak_fraction: float
    start_factor: float
    end_factor: float
    patience_epochs: int
    min_delta: float
    def __init__(self, name: _Optional[str] = ..., warmup_steps: _Optional[int] = ..., every_steps: _Optional[int] = ..., factor: _Optional[float] = ..., minimum_factor: _Optional[float] = ..., peak_fraction: _Optional[float] = ..., start_factor: _Optional[float] = ..., end_factor: _Optional[float] = ..., patience_epochs: _Optional[int] = ..., min_delta: _Optional[float] = ...) -> None: ...

class Penalties(_message.Message):
    __slots__ = ("l1", "l2")
    L1_FIELD_NUMBER: _ClassVar[int]
    L2_FIELD_NUMBER: _ClassVar[int]
    l1: float
    l2: float
    def __init__(self, l1: _Optional[float] = ..., l2: _Optional[float] = ...) -> None: ...

class Clipping(_message.Message):
    __slots__ = ("value", "global_norm")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_NORM_FIELD_NUMBER: _ClassVar[int]
    value: float
    global_norm: float
    def __init__(self, value: _Optional[float] = ..., global_norm: _Optional[float] = ...) -> None: ...

class EarlyStopping(_message.Message):
    __slots__ = ("patience_epochs", "min_delta")
    PATIENCE_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    MIN_DELTA_FIELD_NUMBER: _ClassVar[int]
    patience_epochs: int
    min_delta: float
    def __init__(self, patience_epochs: _Optional[int] = ..., min_delta: _Optional[float] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "spec", "state", "error", "waiting_for", "progress", "result", "create_time", "start_time", "end_time", "reproducibility", "time_left", "waiting", "worker_kinds")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    REPRODUCIBILITY_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    WORKER_KINDS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    spec: JobSpec
    state: JobState
    error: _status_pb2.Status
    waiting_for: str
    progress: Progress
    result: Result
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    reproducibility: str
    time_left: _duration_pb2.Duration
    waiting: Waiting
    worker_kinds: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job_id: _Optional[str] = ..., spec: _Optional[_Union[JobSpec, _Mapping]] = ..., state: _Optional[_Union[JobState, str]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., waiting_for: _Optional[str] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reproducibility: _Optional[str] = ..., time_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ..., worker_kinds: _Optional[_Iterable[str]] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("reason", "workers", "since", "next", "next_time")
    REASON_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    NEXT_TIME_FIELD_NUMBER: _ClassVar[int]
    reason: WaitingReason
    workers: _containers.RepeatedCompositeFieldContainer[SilentWorker]
    since: _timestamp_pb2.Timestamp
    next: str
    next_time: _timestamp_pb2.Timestamp
    def __init__(self, reason: _Optional[_Union[WaitingReason, str]] = ..., workers: _Optional[_Iterable[_Union[SilentWorker, _Mapping]]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next: _Optional[str] = ..., next_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SilentWorker(_message.Message):
    __slots__ = ("name", "silent_s", "still_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    STILL_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    silent_s: float
    still_s: float
    def __init__(self, name: _Optional[str] = ..., silent_s: _Optional[float] = ..., still_s: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "total_steps", "epoch", "loss", "validation_loss", "steps_per_second", "workers", "resting_workers", "transport", "step_cost")
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    RESTING_WORKERS_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    STEP_COST_FIELD_NUMBER: _ClassVar[int]
    step: int
    total_steps: int
    epoch: int
    loss: float
    validation_loss: float
    steps_per_second: float
    workers: int
    resting_workers: int
    transport: str
    step_cost: StepCost
    def __init__(self, step: _Optional[int] = ..., total_steps: _Optional[int] = ..., epoch: _Optional[int] = ..., loss: _Optional[float] = ..., validation_loss: _Optional[float] = ..., steps_per_second: _Optional[float] = ..., workers: _Optional[int] = ..., resting_workers: _Optional[int] = ..., transport: _Optional[str] = ..., step_cost: _Optional[_Union[StepCost, _Mapping]] = ...) -> None: ...

class StepCost(_message.Message):
    __slots__ = ("pull", "compute", "push", "wait", "reduce", "update", "pushed_bytes", "pulled_bytes")
    PULL_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    PUSH_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    REDUCE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    PUSHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PULLED_BYTES_FIELD_NUMBER: _ClassVar[int]
    pull: Latency
    compute: Latency
    push: Latency
    wait: Latency
    reduce: Latency
    update: Latency
    pushed_bytes: int
    pulled_bytes: int
    def __init__(self, pull: _Optional[_Union[Latency, _Mapping]] = ..., compute: _Optional[_Union[Latency, _Mapping]] = ..., push: _Optional[_Union[Latency, _Mapping]] = ..., wait: _Optional[_Union[Latency, _Mapping]] = ..., reduce: _Optional[_Union[Latency, _Mapping]] = ..., update: _Optional[_Union[Latency, _Mapping]] = ..., pushed_bytes: _Optional[int] = ..., pulled_bytes: _Optional[int] = ...) -> None: ...

class Latency(_message.Message):
    __slots__ = ("median_ms", "p95_ms")
    MEDIAN_MS_FIELD_NUMBER: _ClassVar[int]
    P95_MS_FIELD_NUMBER: _ClassVar[int]
    median_ms: float
    p95_ms: float
    def __init__(self, median_ms: _Optional[float] = ..., p95_ms: _Optional[float] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("loss", "validation_loss", "metrics", "parameters_sha256", "parameter_count", "row_count", "validation_row_count", "samples_per_second", "step_ms_median", "training_s", "best_epoch")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_SHA256_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    STEP_MS_MEDIAN_FIELD_NUMBER: _ClassVar[int]
    TRAINING_S_FIELD_NUMBER: _ClassVar[int]
    BEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    loss: float
    validation_loss: float
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    parameters_sha256: str
    parameter_count: int
    row_count: int
    validation_row_count: int
    samples_per_second: float
    step_ms_median: float
    training_s: float
    best_epoch: int
    def __init__(self, loss: _Optional[float] = ..., validation_loss: _Optional[float] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., parameters_sha256: _Optional[str] = ..., parameter_count: _Optional[int] = ..., row_count: _Optional[int] = ..., validation_row_count: _Optional[int] = ..., samples_per_second: _Optional[float] = ..., step_ms_median: _Optional[float] = ..., training_s: _Optional[float] = ..., best_epoch: _Optional[int] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("number", "time", "state_changed", "workers_changed", "checkpoint_written", "checkpoint_failed", "checkpoint_damaged", "resumed", "worker_lost", "worker_differs", "shards_moved", "late_worker_helped", "gradient_is_zero")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    WORKERS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_WRITTEN_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FAILED_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_DAMAGED_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    WORKER_LOST_FIELD_NUMBER: _ClassVar[int]
    WORKER_DIFFERS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_MOVED_FIELD_NUMBER: _ClassVar[int]
    LATE_WORKER_HELPED_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_IS_ZERO_FIELD_NUMBER: _ClassVar[int]
    number: int
    time: _timestamp_pb2.Timestamp
    state_changed: StateChanged
    workers_changed: WorkersChanged
    checkpoint_written: CheckpointWritten
    checkpoint_failed: CheckpointFailed
    checkpoint_damaged: CheckpointDamaged
    resumed: Resumed
    worker_lost: WorkerLost
    worker_differs: WorkerDiffers
    shards_moved: ShardsMoved
    late_worker_helped: LateWorkerHelped
    gradient_is_zero: GradientIsZero
    def __init__(self, number: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state_changed: _Optional[_Union[StateChanged, _Mapping]] = ..., workers_changed: _Optional[_Union[WorkersChanged, _Mapping]] = ..., checkpoint_written: _Optional[_Union[CheckpointWritten, _Mapping]] = ..., checkpoint_failed: _Optional[_Union[CheckpointFailed, _Mapping]] = ..., checkpoint_damaged: _Optional[_Union[CheckpointDamaged, _Mapping]] = ..., resumed: _Optional[_Union[Resumed, _Mapping]] = ..., worker_lost: _Optional[_Union[WorkerLost, _Mapping]] = ..., worker_differs: _Optional[_Union[WorkerDiffers, _Mapping]] = ..., shards_moved: _Optional[_Union[ShardsMoved, _Mapping]] = ..., late_worker_helped: _Optional[_Union[LateWorkerHelped, _Mapping]] = ..., gradient_is_zero: _Optional[_Union[GradientIsZero, _Mapping]] = ...) -> None: ...

class GradientIsZero(_message.Message):
    __slots__ = ("parameters", "reason")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    parameters: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    def __init__(self, parameters: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ...) -> None: ...

class WorkerLost(_message.Message):
    __slots__ = ("worker", "reason", "details")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    reason: LossReason
    details: str
    def __init__(self, worker: _Optional[str] = ..., reason: _Optional[_Union[LossReason, str]] = ..., details: _Optional[str] = ...) -> None: ...

class WorkerDiffers(_message.Message):
    __slots__ = ("worker", "kind", "job_kind", "is_refused")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    JOB_KIND_FIELD_NUMBER: _ClassVar[int]
    IS_REFUSED_FIELD_NUMBER: _ClassVar[int]
    worker: str
    kind: str
    job_kind: str
    is_refused: bool
    def __init__(self, worker: _Optional[str] = ..., kind: _Optional[str] = ..., job_kind: _Optional[str] = ..., is_refused: _Optional[bool] = ...) -> None: ...

class StateChanged(_message.Message):
    __slots__ = ("state", "error")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    state: JobState
    error: _status_pb2.Status
    def __init__(self, state: _Optional[_Union[JobState, str]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class WorkersChanged(_message.Message):
    __slots__ = ("joined", "left", "worker_count", "resting", "tried_again")
    JOINED_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    WORKER_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESTING_FIELD_NUMBER: _ClassVar[int]
    TRIED_AGAIN_FIELD_NUMBER: _ClassVar[int]
    joined: _containers.RepeatedScalarFieldContainer[str]
    left: _containers.RepeatedScalarFieldContainer[str]
    worker_count: int
    resting: _containers.RepeatedScalarFieldContainer[str]
    tried_again: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, joined: _Optional[_Iterable[str]] = ..., left: _Optional[_Iterable[str]] = ..., worker_count: _Optional[int] = ..., resting: _Optional[_Iterable[str]] = ..., tried_again: _Optional[_Iterable[str]] = ...) -> None: ...

class ShardsMoved(_message.Message):
    __slots__ = ("slow_worker", "times_slower", "shares", "reason", "times_shorter")
    SLOW_WORKER_FIELD_NUMBER: _ClassVar[int]
    TIMES_SLOWER_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIMES_SHORTER_FIELD_NUMBER: _ClassVar[int]
    slow_worker: str
    times_slower: float
    shares: _containers.RepeatedCompositeFieldContainer[ShardShare]
    reason: MoveReason
    times_shorter: float
    def __init__(self, slow_worker: _Optional[str] = ..., times_slower: _Optional[float] = ..., shares: _Optional[_Iterable[_Union[ShardShare, _Mapping]]] = ..., reason: _Optional[_Union[MoveReason, str]] = ..., times_shorter: _Optional[float] = ...) -> None: ...

class ShardShare(_message.Message):
    __slots__ = ("worker", "shard_count")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SHARD_COUNT_FIELD_NUMBER: _ClassVar[int]
    worker: str
    shard_count: int
    def __init__(self, worker: _Optional[str] = ..., shard_count: _Optional[int] = ...) -> None: ...

class LateWorkerHelped(_message.Message):
    __slots__ = ("late_worker", "helpers", "step", "late_s", "others_s")
    LATE_WORKER_FIELD_NUMBER: _ClassVar[int]
    HELPERS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    LATE_S_FIELD_NUMBER: _ClassVar[int]
    OTHERS_S_FIELD_NUMBER: _ClassVar[int]
    late_worker: str
    helpers: _containers.RepeatedScalarFieldContainer[str]
    step: int
    late_s: float
    others_s: float
    def __init__(self, late_worker: _Optional[str] = ..., helpers: _Optional[_Iterable[str]] = ..., step: _Optional[int] = ..., late_s: _Optional[float] = ..., others_s: _Optional[float] = ...) -> None: ...

class CheckpointWritten(_message.Message):
    __slots__ = ("step", "size_bytes")
    STEP_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    step: int
    size_bytes: int
    def __init__(self, step: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class CheckpointFailed(_message.Message):
    __slots__ = ("step", "reason")
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    step: int
    reason: str
    def __init__(self, step: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class CheckpointDamaged(_message.Message):
    __slots__ = ("file", "reason")
    FILE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    file: str
    reason: str
    def __init__(self, file: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Resumed(_message.Message):
    __slots__ = ("step", "was_paused")
    STEP_FIELD_NUMBER: _ClassVar[int]
    WAS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    step: int
    was_paused: bool
    def __init__(self, step: _Optional[int] = ..., was_paused: _Optional[bool] = ...) -> None: ...
