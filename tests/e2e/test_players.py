"""Four cells of the table of docs/playback.md; `make players` fills all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.browser import NATIVE, PLAYERS, chromium, needs_players, pages
from tests.players.inputs import INPUTS
from tests.players.seen import by_browser, programs
from tests.players.table import BEGIN, END, cell, recorded

BY_NAME = {what.name: what for what in INPUTS}
TRIES = 3
"""A browser leaves pictures out where the machine has no time for them; one that can't show them never does."""
CELLS = {
    "MPEG-TS, H.265 and AAC": "ffmpeg",
    "QuickTime clips, header last, H.264 and AAC": "hls.js",
    "MP4 clips, then MPEG-TS, H.264 and AAC": "hls.js of 2023",
    "fMP4 HLS, H.264 and AAC": NATIVE,
}


@needs_players[0]
@needs_players[1]
@pytest.mark.e2e
@pytest.mark.long
def test_whatever_was_uploaded_is_shown_whole(tmp_path: Path) -> None:
    with pages() as origin, chromium() as browser:
        for what, url in recorded(tmp_path, [BY_NAME[name] for name in CELLS], origin):
            player = CELLS[what.name]
            seen = []
            while len(seen) < TRIES and (not seen or cell(what, seen[-1]) != "all"):
                if player in PLAYERS:
                    seen.append(by_browser(browser, origin, PLAYERS.index(player), url))
                else:
                    seen.append(programs()[player](url))
            assert cell(what, seen[-1]) == "all", (what.name, player, seen)


def test_the_page_names_each_input_once() -> None:
    page = (Path(__file__).parents[2] / "docs" / "playback.md").read_text()
    table = page.partition(BEGIN)[2].partition(END)[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[2:] == [what.name for what in INPUTS]
