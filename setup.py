"""Compiles the hot path, where that can be done: the same modules, by mypyc, to an extension. All else is in pyproject.toml.

    CLIPKEEP_COMPILE=1 pip install .          the package with its hot path compiled; an error where that fails
    python setup.py build_ext --inplace       beside the sources of a checkout (`make native` does this)

Nothing depends on it: without a compiler the same modules run as Python.
"""

from __future__ import annotations

import os
import sys

from setuptools import setup

HOT = (
    "ingest/admission.py",
    "ingest/answers.py",
    "ingest/body.py",
    "ingest/buffers.py",
    "ingest/budget.py",
    "ingest/connection.py",
    "ingest/framing.py",
    "ingest/heads.py",
    "ingest/media.py",
    "ingest/outbox.py",
    "ingest/packing.py",
    "ingest/polling.py",
    "ingest/rate.py",
    "ingest/receiving.py",
    "ingest/requests.py",
    "ingest/stats.py",
    "storage/checksums.py",
    "storage/days.py",
    "storage/segment.py",
)
"""What every chunk passes through, and nothing asynchronous."""

if os.environ.get("CLIPKEEP_COMPILE") or "build_ext" in sys.argv:
    from mypyc.build import mypycify

    setup(ext_modules=mypycify([*HOT], opt_level="3", group_name="clipkeep_hot"))
else:
    setup()
