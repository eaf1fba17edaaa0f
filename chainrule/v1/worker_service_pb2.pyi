from chainrule.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OrderKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORDER_KIND_UNSPECIFIED: _ClassVar[OrderKind]
    ORDER_KIND_GRADIENT: _ClassVar[OrderKind]
    ORDER_KIND_EVALUATE_TRAINING: _ClassVar[OrderKind]
    ORDER_KIND_EVALUATE_VALIDATION: _ClassVar[OrderKind]
ORDER_KIND_UNSPECIFIED: OrderKind
ORDER_KIND_GRADIENT: OrderKind
ORDER_KIND_EVALUATE_TRAINING: OrderKind
ORDER_KIND_EVALUATE_VALIDATION: OrderKind

class TrainRequest(_message.Message):
    __slots__ = ("hello", "ready", "part", "partial_sum", "failure", "link_proof", "link_declined", "alive", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_SUM_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LINK_PROOF_FIELD_NUMBER: _ClassVar[int]
    LINK_DECLINED_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ready: Ready
    part: VectorPart
    partial_sum: PartialSum
    failure: Failure
    link_proof: LinkProof
    link_declined: LinkDeclined
    alive: Alive
    goodbye: Goodbye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., part: _Optional[_Union[VectorPart, _Mapping]] = ..., partial_sum: _Optional[_Union[PartialSum, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., link_proof: _Optional[_Union[LinkProof, _Mapping]] = ..., link_declined: _Optional[_Union[LinkDeclined, _Mapping]] = ..., alive: _Optional[_Union[Alive, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class TrainResponse(_message.Message):
    __slots__ = ("assignment", "part", "order", "release", "welcome", "help")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    HELP_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    part: VectorPart
    order: Order
    release: Release
    welcome: Welcome
    help: Help
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., part: _Optional[_Union[VectorPart, _Mapping]] = ..., order: _Optional[_Union[Order, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., help: _Optional[_Union[Help, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("name", "process_id", "numpy_version", "blas", "wants_local_link", "host", "processor", "instructions", "numba")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    NUMPY_VERSION_FIELD_NUMBER: _ClassVar[int]
    BLAS_FIELD_NUMBER: _ClassVar[int]
    WANTS_LOCAL_LINK_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PROCESSOR_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    NUMBA_FIELD_NUMBER: _ClassVar[int]
    name: str
    process_id: int
    numpy_version: str
    blas: str
    wants_local_link: bool
    host: str
    processor: str
    instructions: str
    numba: str
    def __init__(self, name: _Optional[str] = ..., process_id: _Optional[int] = ..., numpy_version: _Optional[str] = ..., blas: _Optional[str] = ..., wants_local_link: _Optional[bool] = ..., host: _Optional[str] = ..., processor: _Optional[str] = ..., instructions: _Optional[str] = ..., numba: _Optional[str] = ...) -> None: ...

class Alive(_message.Message):
    __slots__ = ("work_count", "is_loading")
    WORK_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_LOADING_FIELD_NUMBER: _ClassVar[int]
    work_count: int
    is_loading: bool
    def __init__(self, work_count: _Optional[int] = ..., is_loading: _Optional[bool] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("name", "local_link", "lease_s", "alive_interval_s", "session")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LOCAL_LINK_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    ALIVE_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    local_link: LocalLink
    lease_s: float
    alive_interval_s: float
    session: bytes
    def __init__(self, name: _Optional[str] = ..., local_link: _Optional[_Union[LocalLink, _Mapping]] = ..., lease_s: _Optional[float] = ..., alive_interval_s: _Optional[float] = ..., session: _Optional[bytes] = ...) -> None: ...

class LocalLink(_message.Message):
    __slots__ = ("address", "token")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    address: str
    token: bytes
    def __init__(self, address: _Optional[str] = ..., token: _Optional[bytes] = ...) -> None: ...

class LinkProof(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    def __init__(self, value: _Optional[bytes] = ...) -> None: ...

class LinkDeclined(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("job_id", "generation", "spec", "feature_count", "class_count", "first_shard", "shard_count", "shard_sizes", "shared_memory")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    FEATURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_SHARD_FIELD_NUMBER: _ClassVar[int]
    SHARD_COUNT_FIELD_NUMBER: _ClassVar[int]
    SHARD_SIZES_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    generation: int
    spec: _job_pb2.JobSpec
    feature_count: int
    class_count: int
    first_shard: int
    shard_count: int
    shard_sizes: _containers.RepeatedScalarFieldContainer[int]
    shared_memory: SharedMemory
    def __init__(self, job_id: _Optional[str] = ..., generation: _Optional[int] = ..., spec: _Optional[_Union[_job_pb2.JobSpec, _Mapping]] = ..., feature_count: _Optional[int] = ..., class_count: _Optional[int] = ..., first_shard: _Optional[int] = ..., shard_count: _Optional[int] = ..., shard_sizes: _Optional[_Iterable[int]] = ..., shared_memory: _Optional[_Union[SharedMemory, _Mapping]] = ...) -> None: ...

class SharedMemory(_message.Message):
    __slots__ = ("parameters_size_bytes", "gradients_size_bytes", "rows")
    PARAMETERS_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    parameters_size_bytes: int
    gradients_size_bytes: int
    rows: SharedRows
    def __init__(self, parameters_size_bytes: _Optional[int] = ..., gradients_size_bytes: _Optional[int] = ..., rows: _Optional[_Union[SharedRows, _Mapping]] = ...) -> None: ...

class SharedRows(_message.Message):
    __slots__ = ("size_bytes", "targets_offset_bytes", "numbers_offset_bytes", "validation_shard_sizes")
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TARGETS_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_SHARD_SIZES_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    targets_offset_bytes: int
    numbers_offset_bytes: int
    validation_shard_sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, size_bytes: _Optional[int] = ..., targets_offset_bytes: _Optional[int] = ..., numbers_offset_bytes: _Optional[int] = ..., validation_shard_sizes: _Optional[_Iterable[int]] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("segment", "offset_bytes", "size_bytes")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    segment: int
    offset_bytes: int
    size_bytes: int
    def __init__(self, segment: _Optional[int] = ..., offset_bytes: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("job_id", "generation")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    generation: int
    def __init__(self, job_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class VectorPart(_message.Message):
    __slots__ = ("offset", "values", "first_shard", "shard_count", "order")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    FIRST_SHARD_FIELD_NUMBER: _ClassVar[int]
    SHARD_COUNT_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    offset: int
    values: bytes
    first_shard: int
    shard_count: int
    order: int
    def __init__(self, offset: _Optional[int] = ..., values: _Optional[bytes] = ..., first_shard: _Optional[int] = ..., shard_count: _Optional[int] = ..., order: _Optional[int] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("job_id", "generation", "order", "kind", "step", "vector", "place", "statistics", "checks_gradients")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    CHECKS_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    generation: int
    order: int
    kind: OrderKind
    step: int
    vector: VectorPart
    place: Place
    statistics: _containers.RepeatedScalarFieldContainer[float]
    checks_gradients: bool
    def __init__(self, job_id: _Optional[str] = ..., generation: _Optional[int] = ..., order: _Optional[int] = ..., kind: _Optional[_Union[OrderKind, str]] = ..., step: _Optional[int] = ..., vector: _Optional[_Union[VectorPart, _Mapping]] = ..., place: _Optional[_Union[Place, _Mapping]] = ..., statistics: _Optional[_Iterable[float]] = ..., checks_gradients: _Optional[bool] = ...) -> None: ...

class Help(_message.Message):
    __slots__ = ("assignment", "order")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    order: Order
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., order: _Optional[_Union[Order, _Mapping]] = ...) -> None: ...

class PartialSum(_message.Message):
    __slots__ = ("job_id", "generation", "order", "first_shard", "shard_count", "row_count", "sums", "vector", "place", "not_finite", "started_ns", "finished_ns")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    FIRST_SHARD_FIELD_NUMBER: _ClassVar[int]
    SHARD_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    NOT_FINITE_FIELD_NUMBER: _ClassVar[int]
    STARTED_NS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_NS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    generation: int
    order: int
    first_shard: int
    shard_count: int
    row_count: int
    sums: _containers.RepeatedScalarFieldContainer[float]
    vector: VectorPart
    place: Place
    not_finite: NotFinite
    started_ns: int
    finished_ns: int
    def __init__(self, job_id: _Optional[str] = ..., generation: _Optional[int] = ..., order: _Optional[int] = ..., first_shard: _Optional[int] = ..., shard_count: _Optional[int] = ..., row_count: _Optional[int] = ..., sums: _Optional[_Iterable[float]] = ..., vector: _Optional[_Union[VectorPart, _Mapping]] = ..., place: _Optional[_Union[Place, _Mapping]] = ..., not_finite: _Optional[_Union[NotFinite, _Mapping]] = ..., started_ns: _Optional[int] = ..., finished_ns: _Optional[int] = ...) -> None: ...

class NotFinite(_message.Message):
    __slots__ = ("shard", "row")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    shard: int
    row: int
    def __init__(self, shard: _Optional[int] = ..., row: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("job_id", "generation", "message", "type", "is_of_job", "is_of_help")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    IS_OF_JOB_FIELD_NUMBER: _ClassVar[int]
    IS_OF_HELP_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    generation: int
    message: str
    type: str
    is_of_job: bool
    is_of_help: bool
    def __init__(self, job_id: _Optional[str] = ..., generation: _Optional[int] = ..., message: _Optional[str] = ..., type: _Optional[str] = ..., is_of_job: _Optional[bool] = ..., is_of_help: _Optional[bool] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ReadShardRequest(_message.Message):
    __slots__ = ("job_id", "shard", "validation", "session")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    shard: int
    validation: bool
    session: bytes
    def __init__(self, job_id: _Optional[str] = ..., shard: _Optional[int] = ..., validation: _Optional[bool] = ..., session: _Optional[bytes] = ...) -> None: ...

class ReadShardResponse(_message.Message):
    __slots__ = ("row_count", "features", "targets", "row_numbers")
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    ROW_NUMBERS_FIELD_NUMBER: _ClassVar[int]
    row_count: int
    features: bytes
    targets: bytes
    row_numbers: bytes
    def __init__(self, row_count: _Optional[int] = ..., features: _Optional[bytes] = ..., targets: _Optional[bytes] = ..., row_numbers: _Optional[bytes] = ...) -> None: ...
