"""The code blocks of the documentation, and a shell and an interpreter that run them as a reader would.

A block is fenced and names its language. `<!-- not run: WHY -->` on the line above keeps one from being run. In shell
blocks `chainrule server` and `chainrule worker` go on in the background, port 50051 is a free one, and JOB stands for
the latest job.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+?) -->\n+)?^```(?P<language>[a-z]+)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHELLS = ("sh", "bash", "console")
# What goes on until it is ended.
SERVES = re.compile(r"^(?:\.venv/bin/)?chainrule (?:server|worker)\b")
TIMEOUT_S = 180.0
LATEST_JOB = """
latest_job() {
  chainrule list --json | python -c 'import json, sys; print(json.load(sys.stdin)["jobs"][0]["job_id"])'
}
"""
SHELL = "/bin/bash"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. line: where its code begins, from 1. why_not: why it isn't run, or empty."""

    page: Path
    line: int
    language: str
    code: str
    why_not: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("code")) + 1, found["language"], found["code"], found["why"] or "")
        for found in FENCE.finditer(text)
    ]


@dataclass
class Reader:
    """Somebody who types what a page says, in a folder of their own.

    environment: names the server that commands talk to. port: what 50051 stands for."""

    folder: Path
    environment: dict[str, str]
    port: int
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, block: Block) -> None:
        """Run a block. Raises AssertionError with what was printed where it fails."""
        if block.language == "python":
            with contextlib.chdir(self.folder):
                exec(compile("\n" * (block.line - 1) + block.code, str(block.page), "exec"), self.namespace)  # noqa: S102
        elif block.language in SHELLS:
            self._run_shell(block)

    def close(self) -> None:
        """End what was started."""
        for process in reversed(self._started):
            process.send_signal(signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)

    def _run_shell(self, block: Block) -> None:
        code = block.code.replace("50051", str(self.port))
        code = re.sub(r"(?<= )JOB\b(?!\.)", "$(latest_job)", code).replace(".venv/bin/", "")
        lines = code.splitlines()
        for line in [line for line in lines if SERVES.match(line)]:
            self._serve(line)
        script = "\n".join(line for line in lines if not SERVES.match(line))
        done = subprocess.run(
            [SHELL, "-euo", "pipefail", "-c", LATEST_JOB + script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{block}: exit code {done.returncode}\n{script}\n{done.stdout}{done.stderr}")

    def _serve(self, line: str) -> None:
        """Start a server or a worker; a server is waited for, and what follows on the page talks to it."""
        is_server = line.split()[1] == "server"
        output = subprocess.PIPE if is_server else subprocess.DEVNULL
        command = [SHELL, "-c", f"exec {line.split('#')[0].strip()}"]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=output
        )
        self._started.append(process)
        if process.stdout is not None:
            with process.stdout:
                assert process.stdout.readline(), f"{line}: the server didn't start"
            self.environment["CHAINRULE_SERVER"] = f"127.0.0.1:{self.port}"


def reader_environment(home: Path, server: str) -> dict[str, str]:
    """What a reader's commands see: ours first on the path, a home of their own, and the server's address."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHAINRULE_")}
    return {**kept, "PATH": path, "HOME": str(home), "CHAINRULE_SERVER": server, "NO_COLOR": "1"}
