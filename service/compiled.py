"""Whether the hot path runs compiled, and whether what was compiled is still what the sources say."""

from __future__ import annotations

from pathlib import Path

from ingest.heads import COMPILED

ROOT = Path(__file__).parent.parent
ROOMS = ("ingest", "storage")

__all__ = ["COMPILED", "stale_modules"]


def stale_modules(root: Path = ROOT) -> list[str]:
    """Modules of a checkout whose source is newer than the compiled form that is imported instead, as
    `ingest/heads.py`. What was installed by pip is never stale, whatever its files' times say."""
    found: list[str] = []
    if not (root / "setup.py").exists():
        return found
    for room in ROOMS:
        for compiled in sorted((root / room).glob("*.so")):
            source = compiled.with_name(compiled.name.split(".")[0] + ".py")
            if source.exists() and source.stat().st_mtime > compiled.stat().st_mtime:
                found.append(f"{room}/{source.name}")
    return found
