"""The contract as pages: every service, message and field of the protos, with the comments that stand above them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ".chainrule.v1."
# Places in FileDescriptorProto and its parts, as source locations name them (google/protobuf/descriptor.proto).
MESSAGES, ENUMS, SERVICES, FIELDS, VALUES, METHODS, NESTED = 4, 5, 6, 2, 2, 2, 3
KINDS = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}


@dataclass(frozen=True)
class Contract:
    """The compiled protos of the project. comments: by file name and path in the file."""

    protos: tuple[descriptor_pb2.FileDescriptorProto, ...]
    comments: dict[tuple[str, tuple[int, ...]], str]

    @classmethod
    def read(cls) -> Contract:
        """The protos of this checkout."""
        names = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto"))
        google = Path(str(files("google.rpc").joinpath("status.proto"))).parents[2]
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "set"
            includes = [ROOT / "protos", Path(str(files("grpc_tools") / "_proto")), google]
            options = [*(f"-I{each}" for each in includes), "--include_source_info", f"--descriptor_set_out={target}"]
            if protoc.main(["protoc", *options, *names]):
                raise ValueError("the protos don't compile")
            protos = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
        comments = {
            (proto.name, tuple(place.path)): place.leading_comments.strip()
            for proto in protos
            for place in proto.source_code_info.location
            if place.leading_comments
        }
        return cls(tuple(protos), comments)

    def messages(self) -> Iterator[tuple[str, tuple[int, ...], descriptor_pb2.DescriptorProto]]:
        """(file name, path in it, message) of every message that isn't part of another."""
        for proto in self.protos:
            for number, message in enumerate(proto.message_type):
                yield proto.name, (MESSAGES, number), message

    def message(self, name: str) -> tuple[str, tuple[int, ...], descriptor_pb2.DescriptorProto]:
        """The message with this name."""
        return next(found for found in self.messages() if found[2].name == name)

    def comment(self, file: str, *path: int) -> str:
        """What stands above something, as one paragraph; empty where nothing does."""
        return " ".join(self.comments.get((file, path), "").split())


def api_page(contract: Contract) -> str:
    """The page of all services and messages."""
    lines = ["# The gRPC API", "", "Generated from `protos/chainrule/v1/`, which is the contract.", ""]
    for proto in contract.protos:
        for number, service in enumerate(proto.service):
            lines += [f"## {service.name}", "", contract.comment(proto.name, SERVICES, number), ""]
            for place, method in enumerate(service.method):
                call = f"{_stream(method.client_streaming)}{_link(method.input_type)} → "
                call += f"{_stream(method.server_streaming)}{_link(method.output_type)}"
                comment = contract.comment(proto.name, SERVICES, number, METHODS, place)
                lines += [f"### {service.name}.{method.name}", "", call, "", escaped(comment), ""]
    lines += ["## Messages", ""]
    for file, path, message in contract.messages():
        lines += [f"### {message.name}", "", escaped(contract.comment(file, *path)), ""]
        lines += _fields(contract, file, path, message)
        for number, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                inner = (*path, NESTED, number)
                lines += [f"#### {message.name}.{nested.name}", "", escaped(contract.comment(file, *inner)), ""]
                lines += _fields(contract, file, inner, nested)
    lines += ["## Enumerations", ""]
    for proto in contract.protos:
        for number, enum in enumerate(proto.enum_type):
            lines += [f"### {enum.name}", "", escaped(contract.comment(proto.name, ENUMS, number)), ""]
            for place, value in enumerate(enum.value):
                comment = contract.comment(proto.name, ENUMS, number, VALUES, place)
                lines.append(f"- `{value.name}` = {value.number}{': ' + escaped(comment) if comment else ''}")
            lines.append("")
    return "\n".join(lines)


def job_file_page(contract: Contract) -> str:
    """The page of every key of a job file, which are the fields of JobSpec."""
    lines = [
        "# The job file",
        "",
        "A job file is TOML, and its keys are the fields of the message `JobSpec` in `protos/chainrule/v1/job.proto`,",
        "from which this page is generated. Short forms: parameters are a table from names to shapes",
        '(`V = [16, "d"]`), whole numbers stand in shapes as they are, and a message of switches may be a list',
        '(`standardize = ["features"]`).',
        "",
    ]
    _keys(contract, "JobSpec", "", lines)
    return "\n".join(lines)


def _keys(contract: Contract, name: str, prefix: str, lines: list[str]) -> None:
    """The table of a message's keys, then those of its parts."""
    file, path, message = contract.message(name)
    title = f"`[{prefix}]`" if prefix else "The top level"
    lines += [f"## {title}", "", escaped(contract.comment(file, *path)), "", "| key | type | |", "|---|---|---|"]
    parts = []
    for number, field in enumerate(message.field):
        comment = contract.comment(file, *path, FIELDS, number)
        lines.append(f"| `{field.name}` | {_type(message, field, links=False)} | {escaped(comment)} |")
        if field.type_name.startswith(PACKAGE) and not _entry(message, field):
            parts.append((field.type_name.removeprefix(PACKAGE), field.name))
    lines.append("")
    messages = {each.name for _, _, each in contract.messages()}
    for part, key in parts:
        if part in messages:
            _keys(contract, part, f"{prefix}.{key}" if prefix else key, lines)


def _fields(contract: Contract, file: str, path: tuple[int, ...], message: descriptor_pb2.DescriptorProto) -> list[str]:
    if not message.field:
        return []
    lines = ["| field | type | |", "|---|---|---|"]
    for number, field in enumerate(message.field):
        comment = contract.comment(file, *path, FIELDS, number)
        lines.append(f"| {field.number} `{field.name}` | {_type(message, field, links=True)} | {escaped(comment)} |")
    return [*lines, ""]


def _type(message: descriptor_pb2.DescriptorProto, field: descriptor_pb2.FieldDescriptorProto, *, links: bool) -> str:
    entry = _entry(message, field)
    if entry is not None:
        return f"map of {KINDS[entry.field[0].type]} to {KINDS[entry.field[1].type]}"
    kind = _link(field.type_name) if field.type_name and links else KINDS[field.type]
    if field.type_name and not links:
        kind = "table" if field.type == field.TYPE_MESSAGE else "string"
    return f"list of {kind}" if field.label == field.LABEL_REPEATED else kind


def _entry(
    message: descriptor_pb2.DescriptorProto, field: descriptor_pb2.FieldDescriptorProto
) -> descriptor_pb2.DescriptorProto | None:
    """The message of a map's entries; None where the field is no map."""
    name = field.type_name.rpartition(".")[2]
    return next((each for each in message.nested_type if each.options.map_entry and each.name == name), None)


def _link(type_name: str) -> str:
    name = type_name.removeprefix(PACKAGE)
    if name == type_name:
        return f"`{type_name.lstrip('.')}`"
    return f"[{name}](#{name.replace('.', '').lower()})"


def _stream(is_stream: bool) -> str:
    return "stream of " if is_stream else ""


def escaped(text: str) -> str:
    """Text that is shown as it stands, also in a table's cell; what stands between backticks is code."""
    parts = text.replace("|", "\\|").split("`")
    for number in range(0, len(parts), 2):
        for sign in ("*", "_", "<", "["):
            parts[number] = parts[number].replace(sign, "\\" + sign)
    return "`".join(parts)
