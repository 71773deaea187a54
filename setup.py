"""Compiles the hot path, where that is asked for: the same modules, by mypyc. All else is in pyproject.toml.

    make native                                     beside the sources of a checkout, as `make setup` does by itself
    CLIPKEEP_COMPILE=1 pip install --no-build-isolation .
                                                    for an installation; needs clipkeep's dependencies and mypy there

Nothing depends on it: without a C compiler the same modules run as Python, and take more CPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from setuptools import setup

HOT = (
    "ingest/admission.py",
    "ingest/answers.py",
    "ingest/arrivals.py",
    "ingest/any_head.py",
    "ingest/body.py",
    "ingest/buffers.py",
    "ingest/budget.py",
    "ingest/chunked.py",
    "ingest/chunks.py",
    "ingest/connection.py",
    "ingest/framing.py",
    "ingest/heads.py",
    "ingest/media.py",
    "ingest/outbox.py",
    "ingest/packing.py",
    "ingest/pictures.py",
    "ingest/protocols/base.py",
    "ingest/protocols/cors.py",
    "ingest/protocols/live.py",
    "ingest/protocols/named_media.py",
    "ingest/protocols/put.py",
    "ingest/protocols/table.py",
    "ingest/protocols/tus.py",
    "ingest/protocols/upload_call.py",
    "ingest/protocols/whole.py",
    "ingest/rate.py",
    "ingest/receiving.py",
    "ingest/requests.py",
    "ingest/sightings.py",
    "ingest/states.py",
    "ingest/stats.py",
    "ingest/tls.py",
    "ingest/ts_edges.py",
    "ingest/ts_quick.py",
    "ingest/upload_limits.py",
    "ingest/waits.py",
    "storage/checksums.py",
    "storage/days.py",
    "storage/media_facts.py",
    "storage/segment.py",
)
"""What every chunk passes through. Nothing asynchronous: that stays Python, in modules of its own."""

if os.environ.get("CLIPKEEP_COMPILE") == "1" or "build_ext" in sys.argv:
    from mypyc.build import mypycify

    digests = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in HOT}
    setup(ext_modules=mypycify([*HOT], opt_level="3", group_name="clipkeep_hot"))
    if "--inplace" in sys.argv:  # for service/compiled.py: of what this is the compiled form
        Path("clipkeep_hot.json").write_text(json.dumps(digests, indent=1))
else:
    setup()
