"""Make a virtual environment with pip, also where the system's Python came without ensurepip (Debian, Ubuntu).

    python3 tools/make_venv.py .venv

Without ensurepip, pip's wheel is fetched from the package index (PIP_INDEX_URL, or PyPI), checked by its SHA-256, and
installs itself.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import venv
from pathlib import Path
from typing import Any

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
    """Fetch the newest final pip wheel that runs on this Python into a folder and return its path."""
    page = (os.environ.get("PIP_INDEX_URL") or DEFAULT_INDEX).rstrip("/") + "/pip/"
    files = json.loads(read(page, accept="application/vnd.pypi.simple.v1+json"))["files"]
    wheels = [file for file in files if fits(file)]
    if not wheels:
        raise ValueError("the package index has no pip for this Python")
    newest = max(wheels, key=lambda file: version(file["filename"]))
    content = read(urllib.parse.urljoin(page, newest["url"]))
    if hashlib.sha256(content).hexdigest() != newest["hashes"]["sha256"]:
        raise ValueError("the downloaded pip does not have the SHA-256 that the package index names")
    path = folder / Path(newest["filename"]).name
    path.write_bytes(content)
    return path


def read(url: str, *, accept: str = "*/*") -> bytes:
    """The content at a URL. A user and password in it go into a header: urllib would read them as host and port."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"the package index must be at http:// or https://, not at {parts.scheme or 'no'}://")
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers={"Accept": accept})  # noqa: S310 - checked above
    if at:
        token = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - checked above
        content: bytes = response.read()
    return content


def fits(file: dict[str, Any]) -> bool:
    """Whether a file of the index is a final, unwithdrawn wheel for this Python."""
    if not file["filename"].endswith(".whl") or file.get("yanked") or not version(file["filename"]):
        return False
    floor = re.search(r">=\s*(\d+)\.(\d+)", file.get("requires-python") or "")
    return floor is None or sys.version_info[:2] >= (int(floor[1]), int(floor[2]))


def version(filename: str) -> tuple[int, ...]:
    """The version of a wheel by its name; empty for pre-releases."""
    parts = filename.split("-")[1].split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def main() -> int:
    """Make the environment that the command line names; return the exit code."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        make(Path(sys.argv[1]), with_ensurepip=importlib.util.find_spec("ensurepip") is not None)
    except (OSError, ValueError, KeyError, http.client.HTTPException, subprocess.SubprocessError) as error:
        print(
            f"error: pip can't be had ({error}); install it with 'apt-get install python3-venv' and call make again",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
