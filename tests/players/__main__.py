"""`make players`: what each player shows of each kind of upload, as the table of docs/playback.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.e2e.browser import CHROMIUM, chromium, pages
from tests.e2e.browser import PLAYERS as BROWSERS
from tests.players.inputs import INPUTS, Input
from tests.players.seen import COLUMNS, Seen, by_browser, programs
from tests.players.table import cell, recorded, write


def main() -> int:
    parser = argparse.ArgumentParser(prog="make players", description=__doc__)
    parser.add_argument(
        "--only", default="", help="inputs whose names contain this; the table is not written"
    )
    parser.add_argument("--output", type=Path, help="the page whose table is replaced")
    args = parser.parse_args()
    inputs = [one for one in INPUTS if args.only in one.name]
    found: dict[tuple[str, str], str] = {}
    refused = False

    def note(what: Input, player: str, seen: Seen) -> None:
        nonlocal refused
        found[what.name, player] = text = cell(what, seen)
        refused = refused or text not in ("all", "no decoder of it")
        print(f"{what.name:48} {player:18} {text:24} {seen}", flush=True)

    with tempfile.TemporaryDirectory() as folder, pages() as origin:
        for what, url in recorded(Path(folder), inputs, origin):
            for player, play in programs().items():
                note(what, player, play(url))
            if CHROMIUM:
                with chromium() as browser:
                    for number, player in enumerate(BROWSERS):
                        note(what, player, by_browser(browser, origin, number, url))
    if args.output and not args.only:
        write(args.output, inputs, COLUMNS, found)
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
