"""Whether the hot path runs compiled, and whether what was compiled is still what the sources say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ingest.heads import COMPILED

ROOT = Path(__file__).parent.parent
ROOMS = ("ingest", "storage")

__all__ = ["COMPILED", "stale_modules"]


def stale_modules(root: Path = ROOT) -> list[str]:
    """Modules of a checkout whose source is not what was compiled, while the compiled form is imported instead, as
    `ingest/heads.py`. What was installed by pip is never stale.

    Sources are compared by content: what copies a tree may keep the times of its files (rsync, tar), and a newer
    release is then older than what was compiled here.
    """
    found: list[str] = []
    if not (root / "setup.py").exists():
        return found
    compiled_from = _digests(root)
    for room in ROOMS:
        for compiled in sorted((root / room).rglob("*.so")):
            source = compiled.with_name(compiled.name.split(".")[0] + ".py")
            name = str(source.relative_to(root))
            if source.exists() and hashlib.sha256(source.read_bytes()).hexdigest() != compiled_from.get(name):
                found.append(name)
    return found


def _digests(root: Path) -> dict[str, str]:
    """SHA-256 of each source when it was compiled, as setup.py notes them; none when it was stopped before it did."""
    try:
        digests: dict[str, str] = json.loads((root / "clipkeep_hot.json").read_text())
    except (OSError, ValueError):
        return {}
    return digests
