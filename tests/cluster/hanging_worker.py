"""A worker whose computing hangs, in Python, for as long as a file is there; gRPC's threads and all others live on.

`python -P hanging_worker.py FILE …`, with the options of a worker. A program of the tests: no worker has such a thing.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

from chainrule.process.lifecycle import limit_blas_threads


def main() -> None:
    """Run the worker, hanging in `gradient` while FILE is there; a FILE that says 'MemoryError' raises that."""
    limit_blas_threads()  # before numpy is loaded
    from chainrule_engine.microbatch import MicrobatchComputer

    file = Path(sys.argv.pop(1))
    gradient = MicrobatchComputer.gradient

    def hang(self: Any, *arguments: Any, **options: Any) -> Any:
        while os.path.exists(file):  # noqa: PTH110 - the fastest way: it stands before every microbatch
            words = file.read_text().split()
            if words:
                raise {"MemoryError": MemoryError, "ValueError": ValueError}[words[0]](" ".join(words[1:]))
            time.sleep(0.02)
        return gradient(self, *arguments, **options)

    MicrobatchComputer.gradient = hang  # type: ignore[method-assign]
    runpy.run_module("chainrule_worker", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
