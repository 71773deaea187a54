"""`init`, `config`, `clock`: the data folder itself."""

from __future__ import annotations

import os
import re
from contextlib import closing
from typing import Annotated

import typer

from service import terminal
from service.config_text import config_document, load_config, render_config
from service.folder import STORE_VARIABLE, DataFolder, OffsetClock, create_folder, open_folder
from service.mounted import file_system, warning
from service.terminal import DEFAULT_DATA, Data, Json, Store
from storage.errors import CallerError, ClipkeepError
from storage.open_store import open_store
from storage.trial import try_store
from storage.urls import without_password

Catalog = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        help="Where the catalog is: sqlite (a file in the data folder, the default) or"
        " postgresql://user@host:port/database, an empty database that is there already. The password is better in"
        " PGPASSWORD, or in a service file (postgresql:///?service=name), than in the address.",
    ),
]
Vault = Annotated[
    str | None,
    typer.Option(
        "--vault",
        help="Where keys are kept: folder (keys/ in the data folder, the default) or"
        " postgresql://user@host:port/database, an empty database that is never the catalog's. The password as for"
        " --catalog; a service file gives each its own.",
    ),
]
TestClock = Annotated[
    bool,
    typer.Option("--test-clock", help="Allow `clipkeep clock` to move the time. For demos and tests only."),
]
CheckStore = Annotated[
    bool,
    typer.Option(
        "--check-store",
        help="Try the store first: put, read, list and delete one object, and offer one with a wrong checksum."
        " Nothing is made when one of it fails.",
    ),
]


def init(
    data: Data = DEFAULT_DATA,
    store: Store = None,
    catalog: Catalog = None,
    vault: Vault = None,
    test_clock: TestClock = False,
    check_store: CheckStore = False,
    json: Json = False,
) -> None:
    """Make a data folder: config.toml, keys/, catalog.db, entitlements.bitmap, objects/.

    With --catalog postgresql://… there is no catalog.db: its tables are made in that database. With --vault
    postgresql://… keys/ holds master.key alone, which wraps all that is in that database.

    Back up keys/ apart from the rest: without it no recording can be read, with it and the objects all can.

    CLIPKEEP_STORE_URL, CLIPKEEP_HOME_CATALOG and CLIPKEEP_HOME_VAULT are kept in config.toml, where no option says
    otherwise.
    """
    store = store or os.environ.get(STORE_VARIABLE)
    if check_store and store:
        _require_good_store(store)
    made = create_folder(
        data,
        store_url=store,
        test_clock=test_clock,
        environ=os.environ,
        catalog_address=catalog,
        vault_address=vault,
    )
    address = made.home.catalog
    for whose, where in (("catalog", address), ("vault", made.home.vault)):
        if without_password(where) != where:
            terminal.say(
                f"warning: the {whose}'s address has a password in it, and is kept in config.toml; better in"
                " PGPASSWORD, a service file or a password file (docs/operations.md)"
            )
    if doubtful := warning(file_system(data)):
        terminal.say(f"{data}: {doubtful}")
    url = store or (data / "objects").absolute().as_uri()
    problem = _problem_of(url)
    document = {
        "data": str(data),
        "catalog": without_password(address),
        "vault": without_password(made.home.vault),
        "store": url,
        "store_problem": problem,
    }
    terminal.report(
        document,
        json,
        lambda: print(
            f"made {data}. Next:\n"
            f"  clipkeep device add --data {data} --plan trial\n"
            f"  clipkeep serve --data {data}"
        ),
    )
    if problem:
        terminal.say(
            f"warning: the store can't be used yet, and until then every upload is refused: {problem}"
        )


def _require_good_store(url: str) -> None:
    with closing(open_store(url, environ=os.environ, create=True)) as opened:
        if problems := try_store(opened):
            raise CallerError("; ".join(problems), subject=url, code="store_unfit")


def _problem_of(url: str) -> str | None:
    """What keeps the store from being asked, now that a person is looking."""
    try:
        with closing(open_store(url, environ=os.environ)) as opened:
            opened.server_time_s()
    except ClipkeepError as error:
        return f"{error} ({error.code})"
    return None


def config(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Print the configuration in force: every key with its meaning, bounds and value.

    Passwords, and the parts of addresses that authorise, are shown as `***`.
    """
    found = load_config(DataFolder(data).config, os.environ)
    terminal.report(config_document(found), json, lambda: print(render_config(found, masked=True)))


_OFFSET = re.compile(r"([+-]?)([0-9]{1,18})(ms|s|m|h|d)")
MAX_OFFSET_MS = 50 * 365 * 86_400_000
"""Either way: further would leave the years in which days have numbers and dates."""
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def clock(
    offset: Annotated[
        str | None,
        typer.Option(
            "--offset",
            help="Set it so far from the real time, e.g. 15d, -90m, 0s, as a wrong clock is: no time passes.",
        ),
    ] = None,
    advance: Annotated[str | None, typer.Option("--advance", help="Let so much time pass, e.g. 2h.")] = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Show or move the test clock, for all running processes of this data folder at once.

    With --advance time passes. With --offset the clock is set: what destroys or charges by the clock then asks whether
    it is right, as it would of a real one (`sweep --accept-clock`).

    Refused unless config.toml says [clock] test = true, which only `init --test-clock` writes by itself.
    """
    with open_folder(data) as opened:
        if not isinstance(opened.clock, OffsetClock):
            raise CallerError(
                "this data folder runs on the real clock; only one made with `init --test-clock` can be moved",
                subject=str(data),
                code="real_clock",
            )
        set_ms = opened.clock.offset_ms if offset is None else _parse_offset(offset)
        moved_ms = set_ms + (0 if advance is None else _parse_offset(advance))
        if max(abs(set_ms), abs(moved_ms)) > MAX_OFFSET_MS:
            raise CallerError("that is more than 50 years from now", code="bad_offset")
        if moved_ms != opened.clock.offset_ms:
            opened.clock.set_offset_ms(set_ms, passes=False)
            opened.clock.set_offset_ms(moved_ms)
            opened.entitlements.roll()
        terminal.report({"offset_ms": opened.clock.offset_ms, "now_ms": opened.clock.now_ms()}, json)


def _parse_offset(text: str) -> int:
    match = _OFFSET.fullmatch(text)
    if match is None:
        raise CallerError(
            f"{text[:40]!r} is no time span; write a number and ms, s, m, h or d", code="bad_offset"
        )
    sign, number, unit = match.groups()
    return int(sign + number) * _UNIT_MS[unit]


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(config)
    app.command()(clock)
