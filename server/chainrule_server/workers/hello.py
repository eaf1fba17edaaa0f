"""What a worker says of itself, made short and printable: it goes into logs, events and lists, as long as jobs live."""

from __future__ import annotations

from chainrule.text import one_line
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_server.errors import shortened

LONGEST_NAME_BYTES = 64
LONGEST_TEXT_BYTES = 256
LONGEST_FAILURE_BYTES = 1000
DEFAULT_NAME = "worker"


def bounded(hello: pb.Hello) -> pb.Hello:
    """The same with a name of at most 64 bytes, and every other text of at most 256."""
    found = pb.Hello()
    found.CopyFrom(hello)
    for field in pb.Hello.DESCRIPTOR.fields:
        if field.type == field.TYPE_STRING:
            setattr(found, field.name, short(getattr(hello, field.name)))
    found.name = short(hello.name.strip(), LONGEST_NAME_BYTES) or DEFAULT_NAME
    return found


def short(text: str, size_bytes: int = LONGEST_TEXT_BYTES) -> str:
    """A text of a worker on one line, of printable characters only, in at most so many bytes."""
    # Cut before, too: what is a mile long need not be looked at to its end.
    return shortened(one_line(text[:size_bytes]) + ("…" if len(text) > size_bytes else ""), size_bytes)
