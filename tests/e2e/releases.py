"""A release that is yet to come, made of this one: it has a schema of its own, with a migration in two halves."""

from __future__ import annotations

import shutil
from pathlib import Path

from storage.sqlite.schema import REVISION

ROOT = Path(__file__).parents[2]
PACKAGES = ("bench", "ingest", "retention", "service", "storage")
COMING = f"{int(REVISION) + 1:04d}"
COMING_RELEASE = "9.0.0"


def coming_release(folder: Path) -> dict[str, str]:
    """Write it to this folder. Returns what in the environment makes `clipkeep` be it."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    info = folder / f"clipkeep-{COMING_RELEASE}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: clipkeep\nVersion: {COMING_RELEASE}\n")
    _change(folder / "storage/sqlite/schema.py", f'REVISION = "{REVISION}"', f'REVISION = "{COMING}"')
    _change(
        folder / "storage/postgres/migrations.py",
        "STEPS: Mapping[str, Step] = MappingProxyType(\n    {\n",
        "STEPS: Mapping[str, Step] = MappingProxyType(\n    {\n"
        f'        "{REVISION}": Step("{COMING}", before="ALTER TABLE devices ADD coming BIGINT DEFAULT 1;",'
        ' after="ALTER TABLE devices ALTER coming SET NOT NULL;"),\n',
    )
    return {"PYTHONPATH": str(folder)}


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} has another form: {old}"
    path.write_text(text.replace(old, new))
