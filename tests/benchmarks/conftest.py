"""The benchmarks are programs: their modules find each other in their own folder."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# At the end: benchmarks/engine.py must not hide the package.
sys.path += [str(BENCHMARKS), str(BENCHMARKS / "peers")]
