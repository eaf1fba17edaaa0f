import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListWorkersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("name", "address", "host", "process_id", "transport", "connect_time", "silent_s", "lease_s", "numpy_version", "blas", "instructions", "numba", "processor", "job_id", "first_shard", "shard_count", "rows_per_second")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    CONNECT_TIME_FIELD_NUMBER: _ClassVar[int]
    SILENT_S_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    NUMPY_VERSION_FIELD_NUMBER: _ClassVar[int]
    BLAS_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    NUMBA_FIELD_NUMBER: _ClassVar[int]
    PROCESSOR_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_SHARD_FIELD_NUMBER: _ClassVar[int]
    SHARD_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    host: str
    process_id: int
    transport: str
    connect_time: _timestamp_pb2.Timestamp
    silent_s: float
    lease_s: float
    numpy_version: str
    blas: str
    instructions: str
    numba: str
    processor: str
    job_id: str
    first_shard: int
    shard_count: int
    rows_per_second: float
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., host: _Optional[str] = ..., process_id: _Optional[int] = ..., transport: _Optional[str] = ..., connect_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., silent_s: _Optional[float] = ..., lease_s: _Optional[float] = ..., numpy_version: _Optional[str] = ..., blas: _Optional[str] = ..., instructions: _Optional[str] = ..., numba: _Optional[str] = ..., processor: _Optional[str] = ..., job_id: _Optional[str] = ..., first_shard: _Optional[int] = ..., shard_count: _Optional[int] = ..., rows_per_second: _Optional[float] = ...) -> None: ...

class ReportWorkerEndRequest(_message.Message):
    __slots__ = ("worker", "details")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    details: str
    def __init__(self, worker: _Optional[str] = ..., details: _Optional[str] = ...) -> None: ...

class ReportWorkerEndResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
