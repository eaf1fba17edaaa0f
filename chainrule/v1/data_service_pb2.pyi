import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataSet(_message.Message):
    __slots__ = ("sha256", "size_bytes", "names", "create_time")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    size_bytes: int
    names: _containers.RepeatedScalarFieldContainer[str]
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., names: _Optional[_Iterable[str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BeginUploadRequest(_message.Message):
    __slots__ = ("sha256", "size_bytes", "name")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    size_bytes: int
    name: str
    def __init__(self, sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class BeginUploadResponse(_message.Message):
    __slots__ = ("received_bytes", "data_set")
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_SET_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    data_set: DataSet
    def __init__(self, received_bytes: _Optional[int] = ..., data_set: _Optional[_Union[DataSet, _Mapping]] = ...) -> None: ...

class AppendUploadRequest(_message.Message):
    __slots__ = ("sha256", "offset", "content")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    offset: int
    content: bytes
    def __init__(self, sha256: _Optional[str] = ..., offset: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class AppendUploadResponse(_message.Message):
    __slots__ = ("received_bytes",)
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ...) -> None: ...

class FinishUploadRequest(_message.Message):
    __slots__ = ("sha256", "name")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    name: str
    def __init__(self, sha256: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class FinishUploadResponse(_message.Message):
    __slots__ = ("data_set",)
    DATA_SET_FIELD_NUMBER: _ClassVar[int]
    data_set: DataSet
    def __init__(self, data_set: _Optional[_Union[DataSet, _Mapping]] = ...) -> None: ...

class CancelUploadRequest(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...

class CancelUploadResponse(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...

class GetDataSetRequest(_message.Message):
    __slots__ = ("data_set",)
    DATA_SET_FIELD_NUMBER: _ClassVar[int]
    data_set: str
    def __init__(self, data_set: _Optional[str] = ...) -> None: ...

class GetDataSetResponse(_message.Message):
    __slots__ = ("data_set",)
    DATA_SET_FIELD_NUMBER: _ClassVar[int]
    data_set: DataSet
    def __init__(self, data_set: _Optional[_Union[DataSet, _Mapping]] = ...) -> None: ...

class ListDataSetsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "name_prefix")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NAME_PREFIX_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    name_prefix: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., name_prefix: _Optional[str] = ...) -> None: ...

class ListDataSetsResponse(_message.Message):
    __slots__ = ("data_sets", "next_page_token")
    DATA_SETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    data_sets: _containers.RepeatedCompositeFieldContainer[DataSet]
    next_page_token: str
    def __init__(self, data_sets: _Optional[_Iterable[_Union[DataSet, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteDataSetRequest(_message.Message):
    __slots__ = ("data_set",)
    DATA_SET_FIELD_NUMBER: _ClassVar[int]
    data_set: str
    def __init__(self, data_set: _Optional[str] = ...) -> None: ...

class DeleteDataSetResponse(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...
