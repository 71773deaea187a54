"""`catalog grant`: what the service's role may do on a server."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from service import terminal
from service.commands.sweeping import catalog_app
from service.config_text import load_config
from service.folder import DataFolder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.open_catalog import grant_to_service


def catalog_grant(
    role: Annotated[str, typer.Option("--role", help="What the service connects as.")],
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """On PostgreSQL: let a role use the catalog, without a way to change or remove its history.

    Run it as the owner of the tables, who made them with `clipkeep init` and is a member of the role (GRANT ROLE TO
    OWNER); PGUSER and PGPASSWORD name the owner for this one command, when the address names no user. Run it again
    whenever you like. `clipkeep catalog migrate`, as the owner, does it by itself.
    """
    statements = grant_to_service(load_config(DataFolder(data).config, os.environ).home.catalog, role)

    def human() -> None:
        print("\n".join(f"{statement};" for statement in statements))

    terminal.report({"role": role, "statements": statements}, json, human)


def register(_: typer.Typer) -> None:
    catalog_app.command("grant")(catalog_grant)
