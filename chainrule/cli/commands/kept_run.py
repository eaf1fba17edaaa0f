"""What an interrupted `chainrule train` leaves so that `--resume` can go on: the home of its server, beside the model.

It is found by what decides the result: the job as the file and --set say it, without how many workers compute it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from chainrule.cli.failures import wrong_input
from chainrule.errors import ChainruleError
from chainrule.v1 import job_pb2

SUFFIX = ".interrupted"
HOME, FACTS = "home", "run.json"
DIGITS = 12


class NotKept(ChainruleError):
    """What the run had can't be kept; the message says why."""


@dataclass(frozen=True)
class KeptRun:
    """A folder that holds, or may come to hold, the server's home of one interrupted run."""

    folder: Path

    @classmethod
    def of(cls, spec: job_pb2.JobSpec, models: Path) -> KeptRun:
        """That of a job. spec: as it is sent. models: the folder that its model goes to."""
        same = job_pb2.JobSpec()
        same.CopyFrom(spec)
        # Neither has an influence on the result, and the command itself sets the first.
        same.training.ClearField("min_workers")
        same.training.ClearField("max_workers")
        digest = hashlib.sha256(same.SerializeToString(deterministic=True)).hexdigest()[:DIGITS]
        return cls(models / f"{spec.name}-{digest}{SUFFIX}")

    @property
    def home(self) -> Path:
        """The server's home."""
        return self.folder / HOME

    def facts(self) -> tuple[str, int]:
        """The job that was interrupted, and how many workers it had. Raises CommandFailed where nothing is kept."""
        try:
            facts = json.loads((self.folder / FACTS).read_bytes())
            return str(facts["job"]), int(facts["workers"])
        except FileNotFoundError:
            others = sorted(path.name for path in self.folder.parent.glob(f"*{SUFFIX}"))
            there = f"; there is {', '.join(others[:5])}, of other job files or settings" if others else ""
            message = f"nothing was interrupted of this job and these settings in {self.folder.parent}{there}"
            raise wrong_input("--resume", f"{message}; train without --resume") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise wrong_input("--resume", f"{self.folder} can't be read ({error}); train without --resume") from None

    def keep(self, home: Path, job_id: str, *, worker_count: int) -> None:
        """Take over a home that no server uses any more, in place of what was kept before. Raises NotKept."""
        new = self.folder.with_suffix(f"{SUFFIX}.new")
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True, mode=0o700)
            shutil.move(home, new / HOME)
            (new / FACTS).write_text(json.dumps({"job": job_id, "workers": worker_count}))
            self.remove()
            new.rename(self.folder)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            raise NotKept(f"{self.folder} can't be written: {error.strerror or error}") from None

    def remove(self) -> None:
        """Forget what is kept: it has been gone on with."""
        shutil.rmtree(self.folder, ignore_errors=True)
