"""Take out of an environment what a running chainrule never opens, and compile what it does: `prune.py /opt/chainrule`.

Packages bring their tests, headers and sources, pyarrow the protocol of another server, and scikit-learn, of which only
the data sets are read, all of its methods; without them the image is a third smaller. It ends with an error where what
is left can't be loaded. Runs under the environment's own Python.
"""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OURS = ("chainrule", "chainrule_engine", "chainrule_server", "chainrule_worker")
# Folders that no package loads by itself.
FOLDERS = ("tests", "include", "includes", "src", "examples")
SOURCES = (".a", ".c", ".cc", ".cpp", ".h", ".hpp", ".pxd", ".pxi", ".pyi", ".pyx", ".tp")
# Arrow Flight is a protocol for servers; chainrule reads files.
LIBRARIES = ("*flight*.so*", "_pyarrow_cpp_tests*.so")
# Of these, only the sub-packages that LOADED loads are kept.
PARTLY_USED = ("scipy", "sklearn")
# Compiled are the modules that these load: a fifth of what compiling all would take.
LOADED = """
import sys
import rich.live, rich.progress, rich.table
import pyarrow.compute, pyarrow.csv, pyarrow.dataset, pyarrow.feather, pyarrow.fs, pyarrow.parquet
import chainrule.cli.app, chainrule.cli.commands.processes, chainrule_server.__main__, chainrule_worker.__main__
from sklearn import datasets
for load in ("breast_cancer", "diabetes", "digits", "iris", "wine"):
    getattr(datasets, f"load_{load}")()
print(*(module.__file__ for module in [*sys.modules.values()] if getattr(module, "__file__", None)), sep="\\n")
"""


def superfluous(packages: Path) -> Iterator[Path]:
    """The folders and files that can go."""
    for path in packages.rglob("*"):
        is_ours = path.relative_to(packages).parts[0] in OURS
        if not is_ours and (path.name in FOLDERS if path.is_dir() else path.suffix in SOURCES):
            yield path
    for pattern in LIBRARIES:
        yield from (packages / "pyarrow").glob(pattern)


def unloaded(packages: Path, loaded: list[Path]) -> Iterator[Path]:
    """The sub-packages of what is partly used out of which nothing is loaded."""
    for name in PARTLY_USED:
        for folder in (packages / name).iterdir():
            if (folder / "__init__.py").exists() and not any(path.is_relative_to(folder) for path in loaded):
                yield folder


def remove(path: Path) -> None:
    """Remove a file or a folder, which may have gone with the one that it was in."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_copies(folder: Path) -> None:
    """Make links of the copies of a library that a wheel, which can hold no links, has under several names."""
    seen: dict[bytes, Path] = {}
    for path in sorted(folder.glob("lib*.so*")):
        first = seen.setdefault(path.read_bytes(), path)
        if first is not path:
            path.unlink()
            path.symlink_to(first.name)


def load() -> list[Path]:
    """The files of the modules that are needed; loading compiles them. Raises CalledProcessError where one can't be."""
    # -I: nothing of this folder or the user is in the way.
    done = subprocess.run([sys.executable, "-I", "-c", LOADED], check=True, capture_output=True, text=True)
    return [Path(line) for line in done.stdout.splitlines()]


def main() -> int:
    """Prune and compile the environment that the command line names; return the exit code."""
    (packages,) = Path(sys.argv[1]).glob("lib/python*/site-packages")
    for path in [*superfluous(packages)]:
        remove(path)
    link_copies(packages / "pyarrow")
    try:
        for path in [*unloaded(packages, load())]:
            remove(path)
        load()
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"error: something is missing in {packages}:\n{error.stderr}")
        return 1
    return 0 if all(compileall.compile_dir(packages / name, quiet=1) for name in OURS) else 1


if __name__ == "__main__":
    sys.exit(main())
