"""`catalog copy`: an operator outgrows the file, and goes on with PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from service import terminal
from service.commands.sweeping import catalog_app
from service.config_file import set_value
from service.config_text import load_config
from service.folder import CATALOG_VARIABLE, DataFolder, home_of, open_folder
from service.samples import read_samples
from service.terminal import DEFAULT_DATA, Data, Json, Store
from storage.copy_catalog import copy_catalog, take_back
from storage.errors import CallerError, CorruptError
from storage.open_catalog import SQLITE
from storage.open_vault import open_vault
from storage.urls import without_password

SAMPLES = 100
_GO_ON = (
    "the same command goes on where this one stood, or takes the copy back with --back; until then a catalog.db that"
    " was sealed opens for nothing else"
)
_GO_BACK = "the same command goes on"


def catalog_copy(
    to: Annotated[
        str,
        typer.Option("--to", help="postgresql://user@host:port/database, an empty database that is there."),
    ],
    back: Annotated[
        bool,
        typer.Option(
            "--back",
            help="Take the copy back: remove it, and go on with the file. Refused once anything was written there.",
        ),
    ] = False,
    data: Data = DEFAULT_DATA,
    store: Store = None,
    json: Json = False,
) -> None:
    """Copy the catalog from catalog.db to PostgreSQL, and go on there. Stop the service first.

    The file is sealed, so that nothing is written to it beside the copy. A copy that was stopped is run again, and goes
    on. Then every row of both is compared, some recordings are read and decrypted, and config.toml names the new
    catalog. Remove catalog.db when you are content: it holds what accounts may ask to be erased.
    """
    if os.environ.get(CATALOG_VARIABLE):
        raise CallerError(
            "it would be in force whatever this writes into config.toml; unset it first",
            subject=CATALOG_VARIABLE,
            code="bad_config",
        )
    folder = DataFolder(data)
    with terminal.ended_cleanly(_GO_BACK if back else _GO_ON):
        document = _take_back(folder, to) if back else _copy(folder, to, store)
    terminal.report(document, json)


def _copy(folder: DataFolder, to: str, store: str | None) -> dict[str, Any]:
    address = load_config(folder.config, os.environ).home.catalog
    if address == to:
        address = SQLITE  # it was copied before: compared again
    elif address == SQLITE:
        _settle(folder.root, store)
    with terminal.progress_bar() as progress:
        rows = copy_catalog(address, folder.catalog, to=to, home=_home(folder), progress=progress)
    with open_folder(folder.root, store_url=store, environ={**os.environ, CATALOG_VARIABLE: to}) as opened:
        good, wrong = read_samples(opened, SAMPLES)
    if wrong:
        raise CorruptError(
            f"all rows were copied, but of {good + len(wrong)} recordings {len(wrong)} could not be read, the first:"
            f" {wrong[0]}. config.toml was not changed. When that is mended, run this again",
            subject=without_password(to),
            code="samples_unreadable",
        )
    set_value(folder.config, "home", "catalog", to)
    return {
        "catalog": without_password(to),
        "rows": rows,
        "recordings_read": good,
        "sealed": str(folder.catalog),
    }


def _settle(root: Path, store: str | None) -> None:
    """Look at the old catalog as any command does: it is this folder's, and knows it."""
    try:
        with open_folder(root, store_url=store):
            pass
    except CallerError as error:
        if error.code != "catalog_moved":  # a copy that was stopped
            raise


def _home(folder: DataFolder) -> int:
    config = load_config(folder.config, os.environ)
    with open_vault(folder.vault_place(config), folder.master_key) as vault:
        return home_of(vault.token_secret)


def _take_back(folder: DataFolder, to: str) -> dict[str, Any]:
    with terminal.progress_bar() as progress:
        take_back(
            folder.catalog,
            to=to,
            home=_home(folder),
            progress=progress,
            before=lambda: set_value(folder.config, "home", "catalog", SQLITE),
        )
    return {"catalog": SQLITE, "removed": without_password(to)}


def register(_: typer.Typer) -> None:
    catalog_app.command("copy")(catalog_copy)
