"""`catalog migrate`: a catalog of an earlier release, brought up to date."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from service import terminal
from service.commands.sweeping import catalog_app
from service.config_text import load_config
from service.folder import DataFolder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.clock import SystemClock
from storage.errors import CallerError
from storage.open_catalog import migrate_catalog
from storage.open_vault import open_vault


def catalog_migrate(
    before: Annotated[
        bool, typer.Option("--before", help="On PostgreSQL: only what the new release needs.")
    ] = False,
    after: Annotated[
        bool, typer.Option("--after", help="On PostgreSQL: the rest, once no host runs the earlier release.")
    ] = False,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Bring the catalog of an earlier release up to date. Stop the service first.

    A copy of catalog.db as it was is made beside it first, and all changes are one transaction: a run that was
    killed is run again. Remove the copy when you are content: it holds what accounts may ask to be erased.

    On PostgreSQL no copy is made: make a backup of the database first. There the service may go on: run this with
    --before, give the new release to one host after the other, then run this with --after.
    """
    if before and after:
        raise CallerError(
            "--before and --after are done apart; without either both are done", code="bad_options"
        )
    folder = DataFolder(data)
    path, now_ms = folder.catalog, SystemClock().now_ms()
    time = datetime.fromtimestamp(now_ms / 1000, UTC)
    config = load_config(folder.config, os.environ)
    with open_vault(folder.vault_place(config), folder.master_key) as vault:
        migrated = migrate_catalog(
            config.home.catalog,
            path,
            vault,
            backup=path.with_name(f"{path.name}.before-{time:%Y%m%dT%H%M%SZ}"),
            now_ms=now_ms,
            half="before" if before else "after" if after else "both",
        )
    document = {
        "catalog": migrated.subject,
        "before": migrated.before,
        "after": migrated.after,
        "backup": None if migrated.backup is None else str(migrated.backup),
    }

    def human() -> None:
        if migrated.before == migrated.after:
            print(f"{migrated.subject} is up to date ({migrated.after})")
            return
        done = "prepared" if before else "migrated"
        print(f"{done} {migrated.subject} from {migrated.before} to {migrated.after}")
        if migrated.backup is not None:
            print(f"as it was: {migrated.backup}")

    terminal.report(document, json, human)


def register(_: typer.Typer) -> None:
    catalog_app.command("migrate")(catalog_migrate)
