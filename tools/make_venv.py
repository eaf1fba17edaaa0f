"""Make a virtual environment with pip, also where the system's Python came without ensurepip (Debian, Ubuntu).

    python3 tools/make_venv.py .venv

Without ensurepip, pip's wheel is fetched from the package index (PIP_INDEX_URL, or PyPI), checked by its SHA-256, and
installs itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import venv
from pathlib import Path

TIMEOUT_S = 60
DEFAULT_INDEX = "https://pypi.org/simple"


def make(folder: Path, *, with_ensurepip: bool) -> None:
    """Make the environment. Raises OSError, ValueError or CalledProcessError where pip can't be had."""
    venv.create(folder, with_pip=with_ensurepip, clear=True)
    if not with_ensurepip:
        python = folder / "bin" / "python"
        with tempfile.TemporaryDirectory() as temporary:
            wheel = fetch_pip(Path(temporary))
            command = [str(python), f"{wheel}/pip", "install", "--quiet", "--no-index", str(wheel)]
            subprocess.run(command, check=True, timeout=TIMEOUT_S)


def fetch_pip(folder: Path) -> Path:
    """Fetch the newest final pip wheel from the index into a folder and return its path."""
    index = os.environ.get("PIP_INDEX_URL", DEFAULT_INDEX).rstrip("/")
    request = urllib.request.Request(f"{index}/pip/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})  # noqa: S310 - the user's own index
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
        files = json.load(response)["files"]
    wheels = [file for file in files if file["filename"].endswith(".whl") and not file.get("yanked")]
    newest = max(wheels, key=lambda file: version(file["filename"]))
    url = urllib.parse.urljoin(f"{index}/pip/", newest["url"])
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
        content = response.read()
    if hashlib.sha256(content).hexdigest() != newest["hashes"]["sha256"]:
        raise ValueError("the downloaded pip does not have the SHA-256 that the index names")
    path = folder / newest["filename"]
    path.write_bytes(content)
    return path


def version(filename: str) -> tuple[int, ...]:
    """The version of a wheel by its name; pre-releases come before everything."""
    parts = filename.split("-")[1].split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def main() -> int:
    """Make the environment that the command line names; return the exit code."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        make(Path(sys.argv[1]), with_ensurepip=importlib.util.find_spec("ensurepip") is not None)
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        print(
            f"error: pip can't be had ({error}); install it with 'apt-get install python3-venv' and call make again",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
