"""`catalog migrate`: a catalog of an earlier release, brought up to date."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from service import terminal
from service.commands.sweeping import catalog_app
from service.folder import DataFolder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.clock import SystemClock


def catalog_migrate(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Bring the catalog of an earlier release up to date. Stop the service first.

    A copy of the file as it was is made beside it first, and all changes are one transaction: a run that was
    killed is run again. Remove the copy when you are content: it holds what accounts may ask to be erased.
    """
    from storage.sqlite.migrations.run import migrate  # Alembic takes a second, and nobody else needs it

    path = DataFolder(data).catalog
    time = datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)
    migrated = migrate(path, backup=path.with_name(f"{path.name}.before-{time:%Y%m%dT%H%M%SZ}"))
    document = {
        "catalog": str(path),
        "before": migrated.before,
        "after": migrated.after,
        "backup": None if migrated.backup is None else str(migrated.backup),
    }

    def human() -> None:
        if migrated.backup is None:
            print(f"{path} is up to date ({migrated.after})")
        else:
            print(f"migrated {path} from {migrated.before} to {migrated.after}; as it was: {migrated.backup}")

    terminal.report(document, json, human)


def register(_: typer.Typer) -> None:
    catalog_app.command("migrate")(catalog_migrate)
