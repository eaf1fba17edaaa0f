import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NamedVersion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NAMED_VERSION_UNSPECIFIED: _ClassVar[NamedVersion]
    NAMED_VERSION_LAST: _ClassVar[NamedVersion]
    NAMED_VERSION_BEST: _ClassVar[NamedVersion]
NAMED_VERSION_UNSPECIFIED: NamedVersion
NAMED_VERSION_LAST: NamedVersion
NAMED_VERSION_BEST: NamedVersion

class ModelVersion(_message.Message):
    __slots__ = ("step", "named")
    STEP_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    step: int
    named: NamedVersion
    def __init__(self, step: _Optional[int] = ..., named: _Optional[_Union[NamedVersion, str]] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("step", "validation_loss", "time", "size_bytes")
    STEP_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    step: int
    validation_loss: float
    time: _timestamp_pb2.Timestamp
    size_bytes: int
    def __init__(self, step: _Optional[int] = ..., validation_loss: _Optional[float] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., size_bytes: _Optional[int] = ...) -> None: ...
