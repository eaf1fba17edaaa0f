"""Random messages of any type, from its descriptor: a hypothesis strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

DEPTH = 5
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50) | st.just("é" * 5000)


@dataclass(repr=False)
class Wanted:
    """What is drawn: any message of a type. known: sensible values for fields by name, taken half of the time."""

    descriptor: Descriptor
    known: dict[str, list[Any]]


@st.composite
def messages(draw: st.DrawFn, wanted: Wanted) -> Message:
    """A message with any of its fields set, and of those that are messages any fields, to a depth of DEPTH."""
    return _message(draw, wanted.descriptor, wanted.known, DEPTH)


def _message(draw: st.DrawFn, descriptor: Descriptor, known: dict[str, list[Any]], depth: int) -> Message:
    kind: Any = message_factory.GetMessageClass(descriptor)
    message: Message = kind()
    for field in descriptor.fields:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        is_too_deep = field.message_type is not None and depth == 0 and not is_map
        if is_too_deep or not draw(st.booleans()):
            continue
        if is_map:
            of_strings = [each.type for each in field.message_type.fields] == [FieldDescriptor.TYPE_STRING] * 2
            if of_strings:
                getattr(message, field.name).update(draw(st.dictionaries(TEXTS, TEXTS, max_size=3)))
        elif field.is_repeated:
            values = [_value(draw, field, known, depth) for _ in range(draw(st.integers(0, 3)))]
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(_value(draw, field, known, depth))
        else:
            setattr(message, field.name, _value(draw, field, known, depth))
    return message


def _value(draw: st.DrawFn, field: FieldDescriptor, known: dict[str, list[Any]], depth: int) -> Any:
    values = [value for value in known.get(field.name, ()) if _fits(field, value)]
    if values and draw(st.booleans()):
        return values[draw(st.integers(0, len(values) - 1))]
    if field.message_type is not None:
        return _message(draw, field.message_type, known, depth - 1)
    return draw(_scalars(field))


def _fits(field: FieldDescriptor, value: Any) -> bool:
    """Whether a value that is known by the field's name is of its kind: names repeat from message to message."""
    if isinstance(value, Message):
        return field.message_type is not None and value.DESCRIPTOR.full_name == field.message_type.full_name
    return isinstance(value, str) and field.type == FieldDescriptor.TYPE_STRING


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.cpp_type in INTEGERS:
        low, high = INTEGERS[field.cpp_type]
        return st.sampled_from([0, 1, 2, 8, 1000, low, high]) | st.integers(low, high)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats(width=32)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        numbers = [value.number for value in field.enum_type.values]
        return st.sampled_from(numbers) | st.integers(-(2**31), 2**31 - 1)
    return st.binary(max_size=100) if field.type == FieldDescriptor.TYPE_BYTES else TEXTS
