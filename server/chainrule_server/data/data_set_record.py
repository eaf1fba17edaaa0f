"""What is known of an uploaded file besides its bytes, as JSON beside them; and which hashes and names there can be."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path

from chainrule.cells.endings import ENDINGS
from chainrule_server.storage import durable_file

LONGEST_NAME = 200
# A data set that is uploaded under ever new names must not grow without end.
MOST_NAMES = 20
FEWEST_DIGITS = 8
# Tables, and models for jobs to start from.
UPLOAD_ENDINGS = (*ENDINGS, ".safetensors")
MANIFEST = "manifest.json"
CONTENT = "content"


@dataclass(frozen=True)
class GivenName:
    """A name, and the Unix time at which it was given, for people. order: that of all names and files of a server.

    0 is the order of what a chainrule wrote that knew times alone: the times then tell which came later."""

    name: str
    given_at_s: float
    order: int = 0

    @property
    def key(self) -> tuple[int, float]:
        """The larger, the later: a clock may be put back, an order can't."""
        return self.order, self.given_at_s


@dataclass(frozen=True)
class DataSetRecord:
    """A file of `size_bytes` bytes. names: the latest last. created_at_s: Unix time. order: as that of a name."""

    sha256: str
    size_bytes: int
    names: tuple[GivenName, ...]
    created_at_s: float
    order: int = 0

    @property
    def name(self) -> str:
        """The name that it got last."""
        return self.names[-1].name

    @property
    def last_order(self) -> int:
        """The largest in it."""
        return max(self.order, *(each.order for each in self.names))

    def given(self, name: str) -> GivenName | None:
        """The name as it was given to this file; None where it wasn't."""
        return next((each for each in self.names if each.name == name), None)

    def with_name(self, given: GivenName) -> DataSetRecord:
        """The same with a name that was given now; the oldest of too many names goes."""
        others = tuple(each for each in self.names if each.name != given.name)[-(MOST_NAMES - 1) :]
        return dataclasses.replace(self, names=(*others, given))

    def numbered(self, order: int) -> DataSetRecord:
        """The same, of which the file and its only name came at this place."""
        return dataclasses.replace(self, names=(dataclasses.replace(self.names[-1], order=order),), order=order)

    def write(self, folder: Path) -> None:
        """Put it on the disk, whole or not at all. Raises OSError."""
        fields = {
            "size_bytes": self.size_bytes,
            "created_at_s": self.created_at_s,
            "names": [(each.name, each.given_at_s) for each in self.names],
            # Beside the names and not among them: an older chainrule then reads the file too.
            "order": self.order,
            "name_orders": [each.order for each in self.names],
        }
        durable_file.write(folder / MANIFEST, json.dumps(fields, ensure_ascii=False).encode())

    @classmethod
    def read(cls, folder: Path) -> DataSetRecord:
        """That of a folder, whose name is the SHA-256. Raises OSError, ValueError."""
        fields = json.loads((folder / MANIFEST).read_bytes())
        try:
            orders = fields.get("name_orders", [0] * len(fields["names"]))
            names = tuple(
                GivenName(str(name), float(given_at_s), int(order))
                for (name, given_at_s), order in zip(fields["names"], orders, strict=True)
            )
            if not names or name_problem(names[-1].name) or sha256_problem(folder.name):
                raise ValueError(f"{folder} holds no data set")
            created_at_s, order = float(fields["created_at_s"]), int(fields.get("order", 0))
            return cls(folder.name, int(fields["size_bytes"]), names, created_at_s, order)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder / MANIFEST} is damaged: {error!r}") from None


def ending_of(name: str) -> str:
    """The ending that tells how a file is read; '' for another."""
    return next((ending for ending in UPLOAD_ENDINGS if name.lower().endswith(ending)), "")


def name_problem(name: str) -> str:
    """What is wrong with the name of a data set, or ''."""
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or "/" in name:
        return f"must be a file's name of at most {LONGEST_NAME} printable characters, got {name[:80]!r}"
    if not ending_of(name) or name.lower() == ending_of(name):
        return f"must end in {', '.join(UPLOAD_ENDINGS)}, which tells how the file is read; got {name[:80]!r}"
    return ""


def sha256_problem(sha256: str) -> str:
    """What is wrong with a hash, or ''."""
    if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
        return f"must be the SHA-256 of the file, 64 lower-case hexadecimal digits, got {sha256[:80]!r}"
    return ""
