"""`catalog reopen`: the way back after a sweep by a clock that was ahead."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from retention.reopening import Closed, closed, reopen
from service import terminal
from service.commands.serving import alone
from service.commands.sweeping import catalog_app
from service.folder import DataFolder, open_folder
from service.terminal import DEFAULT_DATA, Data, Json, Store
from storage.days import parse_date, to_date, to_day


def catalog_reopen(
    through: Annotated[
        str | None,
        typer.Option("--through", help="The last day that is over, as a rule today: YYYY-MM-DD, UTC."),
    ] = None,
    data: Data = DEFAULT_DATA,
    store: Store = None,
    json: Json = False,
) -> None:
    """Let days take uploads again which a sweep closed before their time, by a clock that was ahead.

    Set the clock right first, and stop the service. Without --through it shows what is closed and changes nothing.
    New uploads are stored from then on; what that sweep removed is gone, and stays so. Sweeps take this host's clock
    for right from then on.

    Example: `clipkeep catalog reopen --through 2026-11-28`
    """
    if through is None:
        with open_folder(data, store_url=store) as opened:
            found = closed(opened.catalog, opened.vault, opened.bitmap, opened.clock)
        terminal.report(_shown(found), json, lambda: _tell(found))
        return
    day = to_day(parse_date(through, field="--through"))
    with alone(DataFolder(data)), open_folder(data, store_url=store) as opened:
        lease = opened.sweep_lease()
        opened.witness.require(accept=True)  # a store's clock has the last word
        begun = reopen(
            opened.catalog,
            opened.vault,
            opened.bitmap,
            opened.clock,
            lease,
            through=day,
            delete_delay_ms=round(opened.config.retention.delete_delay_s * 1000),
        )
        opened.witness.note(accept=True)
        document = {
            "closed_through": to_date(opened.catalog.closed_through).isoformat(),
            "first_key_month": opened.catalog.first_key_month,
            "devices_begun_anew": begun,
        }
    terminal.report(document, json)


def _shown(found: Closed) -> dict[str, Any]:
    return {
        "today": to_date(found.today).isoformat(),
        "closed_through": to_date(found.through).isoformat() if found.through else None,
        "last_month_destroyed": found.last_month_destroyed,
        "ahead": found.ahead,
    }


def _tell(found: Closed) -> None:
    today = to_date(found.today)
    print(f"by this host's clock today is {today} (UTC)")
    if not found.ahead:
        print("no day is closed before its time: there is nothing to reopen")
        return
    print(
        f"closed through {to_date(found.through)}: uploads that expire by then are refused with 410.\n"
        f"If {today} is right, stop the service and run: clipkeep catalog reopen --through {today}"
    )


def register(_: typer.Typer) -> None:
    catalog_app.command("reopen")(catalog_reopen)
