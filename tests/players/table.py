"""The table of docs/playback.md: recordings to be played, what a cell says, and how it is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.e2e.service import Service, until
from tests.players.inputs import Input
from tests.players.seen import Seen

BEGIN, END = "<!-- players: begin -->", "<!-- players: end -->"
SLACK = 8
"""Pictures that a browser may leave out at its start and its end, or decode once more."""
SLACK_S = 1.0


def recorded(folder: Path, inputs: Sequence[Input], origin: str = "") -> Iterator[tuple[Input, str]]:
    """Each input as one device of a service has it, and the address of its playlist.

    Args:
        folder: an empty one.
        origin: of the pages that may ask.
    """
    films = folder / "films"
    films.mkdir()
    with Service(folder, environ={"CLIPKEEP_API_CORS_ORIGINS": origin} if origin else {}) as service:
        service.init()
        devices = [service.add_devices(1)[0] for _ in inputs]
        service.start()
        for what, device in zip(inputs, devices, strict=True):
            what.send(service, device, films, what)
            token = service.viewer_token(device.number)

            def held_s(number: int = device.number, token: str = token) -> float:
                listed = json.loads(service.get(f"/v1/devices/{number}/recordings", token=token).body)
                return sum(c["duration_ms"] for span in listed["spans"] for c in span["chunks"]) / 1000

            until(lambda of=what, held_s=held_s: held_s() >= of.length_s - SLACK_S, f"{what.name} is stored")
            host, port = service.api
            to_ms = int(time.time() * 1000) + 60_000
            query = f"from=0&to={to_ms}&token={token}"
            yield what, f"http://{host}:{port}/v1/devices/{device.number}/playlist.m3u8?{query}"
        assert service.stop() == 0


NO_DECODER = ("bufferAddCodecError", "DECODER_ERROR_NOT_SUPPORTED")
"""What browsers say of a codec that they do not have."""


def cell(what: Input, seen: Seen) -> str:
    """`all`, or how much of it, and the player's own word."""
    if any(word in seen.said for word in NO_DECODER):
        return "no decoder of it"
    if what.has_pictures:
        if abs(seen.frames - what.frames) <= SLACK:
            return "all"
        share = f"{seen.frames} of {what.frames}"
    else:
        if seen.played_s >= what.length_s - SLACK_S:
            return "all"
        share = f"{seen.played_s:.0f} of {what.length_s} s"
    return f"{share}: {seen.said[:60]}" if seen.said else share


def write(
    page: Path, inputs: Sequence[Input], players: Sequence[str], found: Mapping[tuple[str, str], str]
) -> None:
    """Replace the table between the marks of the page."""
    lines = ["| what is uploaded | " + " | ".join(players) + " |", "| --- " * (len(players) + 1) + "|"]
    for what in inputs:
        cells = (found.get((what.name, player), "not tried") for player in players)
        lines.append(f"| {what.name} | " + " | ".join(text.replace("|", "/") for text in cells) + " |")
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after)
