"""Runs pytest, and what failed once more, alone: `python -m tests.twice ARGUMENTS OF PYTEST`.

Tests of real processes, browsers and players have bounds of time. They hold on a busy machine, and not on one that
stands still for half a minute. What fails again is wrong; what passes then is named, so that it is looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FAILED = Path(__file__).parents[1] / ".pytest_cache/v/cache/lastfailed"
MOST = 12
"""Tests. Where more fail it is not the machine."""
SOME_FAILED = 1
"""pytest's exit code."""


def main(arguments: Sequence[str]) -> int:
    FAILED.unlink(missing_ok=True)
    code = subprocess.call([sys.executable, "-m", "pytest", *arguments])
    failed = sorted(json.loads(FAILED.read_text())) if code == SOME_FAILED and FAILED.exists() else []
    if not 0 < len(failed) <= MOST:
        return code
    print(f"{len(failed)} failed beside others; once more, alone:", *failed, sep="\n  ", flush=True)
    code = subprocess.call([sys.executable, "-m", "pytest", *failed])
    if code == 0:
        print("to be looked at, since they passed only alone:", *failed, sep="\n  ", flush=True)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
