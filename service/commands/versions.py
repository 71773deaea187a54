"""How the versions of a published text are shown: of the agreement, and of the privacy policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from service import terminal
from service.commands.plans import shown_instant
from service.commands.showing import when
from storage.rows.accounts import AgreementRow

Version = Annotated[
    int | None, typer.Option("--version", help="Which one; default the current.", min=1, max=1 << 31)
]


def report_text(row: AgreementRow, json: bool) -> None:
    """One version, its text alone on stdout."""

    def draw() -> None:
        terminal.say(f"version {row.version}, published {shown_instant(row.published_ms)}")
        print(row.text)

    terminal.report({**_shown(row), "text": row.text}, json, draw)


def report_versions(rows: Sequence[AgreementRow], title: str, json: bool) -> None:
    """All of them, without their texts."""
    cells = [[row.version, when(row.published_ms), len(row.text), row.sha256] for row in rows]
    columns = ["version", "published (UTC)", "characters", "SHA-256"]
    document = {"versions": [_shown(row) for row in rows]}
    terminal.report(document, json, lambda: terminal.table(title, columns, cells))


def report_published(row: AgreementRow, before: int, json: bool) -> None:
    """The version in force after a text was published. `before`: the one that was in force until then."""
    is_new = row.version != before
    said = "is in force" if is_new else "is in force already, with this text"
    terminal.report({**_shown(row), "new": is_new}, json, lambda: print(f"version {row.version} {said}"))


def _shown(row: AgreementRow) -> dict[str, Any]:
    return {"version": row.version, "published_ms": row.published_ms, "sha256": row.sha256}
