"""service.api.pieces: a long answer stops where its host no longer hears home."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from starlette.types import Message

from ingest import answers
from retention.bitmap import PRESENT, SUSPENDED, EntitlementBitmap
from retention.freshness import Freshness
from service.api.pieces import PIECE_BYTES, Confirm, PiecewiseAnswer, require_fresh, send_whole
from service.api.responses import ChunkResponse, ExportResponse
from service.playback import Refused
from tests.service.world import World, clips, playing, refused

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
NOW_NS, STALE_NS = 10**15, 10**9


@pytest.fixture
def bitmap(tmp_path: Path) -> Iterator[EntitlementBitmap]:
    EntitlementBitmap.create(tmp_path / "bitmap", 2)
    with EntitlementBitmap.open(tmp_path / "bitmap", writable=True) as opened:
        opened.stamp(NOW_NS)
        yield opened


class Client:
    """Takes messages; after the given number of pieces of the body its host no longer hears home."""

    def __init__(self, bitmap: EntitlementBitmap, *, stale_after: int = 99) -> None:
        self.messages: list[Message] = []
        self._bitmap = bitmap
        self._left = stale_after

    async def send(self, message: Message) -> None:
        self.messages.append(message)
        if message["type"] == "http.response.body":
            self._left -= 1
        if not self._left:
            self._bitmap.stamp(NOW_NS - STALE_NS - 1)

    @property
    def body(self) -> bytes:
        return b"".join(bytes(message.get("body", b"")) for message in self.messages)


def fresh(bitmap: EntitlementBitmap) -> Confirm:
    return partial(require_fresh, Freshness(bitmap, STALE_NS, lambda: NOW_NS))


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
@pytest.mark.parametrize("more", [False, True])
async def test_all_of_it_in_pieces(bitmap: EntitlementBitmap, size: int, more: bool) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    client = Client(bitmap)
    await PiecewiseAnswer(client.send, START, fresh(bitmap)).send(data, more=more)
    assert client.messages[0] == START
    assert client.body == data
    pieces = client.messages[1:]
    assert all(len(piece["body"]) <= PIECE_BYTES for piece in pieces)
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [more]


async def test_the_head_goes_with_a_piece_that_was_confirmed(bitmap: EntitlementBitmap) -> None:
    """A head without a piece would be answered as a fault of the service."""
    client = Client(bitmap)
    asked: list[int] = []

    def confirm() -> None:
        asked.append(len(client.messages))
        if len(asked) == 2:
            raise Refused.by(answers.HOST_STALE)

    await send_whole(client.send, START, bytes(3 * PIECE_BYTES), confirm)
    assert asked == [0, 2]
    assert [message["type"] for message in client.messages] == ["http.response.start", "http.response.body"]


async def test_a_whole_answer(bitmap: EntitlementBitmap) -> None:
    data = bytes(2 * PIECE_BYTES)
    client = Client(bitmap)
    await send_whole(client.send, START, data, fresh(bitmap))
    assert client.messages[0] == START
    assert client.body == data
    assert client.messages[-1]["more_body"] is False


async def test_nothing_is_sent_of_an_answer_that_begins_too_late(bitmap: EntitlementBitmap) -> None:
    bitmap.stamp(0)
    client = Client(bitmap)
    with refused("host_stale"):
        await send_whole(client.send, START, b"x", fresh(bitmap))
    with refused("host_stale"):
        await PiecewiseAnswer(client.send, START, fresh(bitmap)).send(b"x", more=False)
    assert client.messages == []


async def test_no_further_piece_is_sent_of_one_that_is_under_way(bitmap: EntitlementBitmap) -> None:
    """As of a process that was stopped in the middle of it, and goes on. It is no failure of the application's."""
    client = Client(bitmap, stale_after=2)
    await send_whole(client.send, START, bytes(5 * PIECE_BYTES), fresh(bitmap))
    assert len(client.body) == 2 * PIECE_BYTES
    assert client.messages[-1]["more_body"] is True, "it does not look like one that is whole"


async def test_a_chunk_stops_where_its_viewer_loses_the_right_to_it(world: World) -> None:
    """The host hears home; its API process was stopped in the middle, or the reader is slow."""
    pieces: list[bytes] = []
    [clip] = clips(1, size=188 * 4000)
    world.keep(clip)

    async def send(message: Message) -> None:
        pieces.append(bytes(message.get("body", b"")))
        if len(pieces) == 2:  # the first is the head
            world.change(flags=PRESENT | SUSPENDED)

    async with playing(world) as playback:
        viewer = world.viewer()
        row = await playback.chunks.find(viewer, clip.capture_ms)
        read = await playback.chunks.read(viewer, row)
        answer = ChunkResponse(playback, viewer, row, (0, row.length), read)
        await answer({}, receive_nothing, send)
    assert b"".join(pieces) == clip.data[:PIECE_BYTES]


async def test_an_export_that_may_not_begin_is_refused(world: World) -> None:
    """It was opened, and its viewer lost the right before the first piece: that is told by its code."""
    sent: list[Message] = []
    [clip] = clips(1, size=188 * 4000)
    world.keep(clip)

    async def send(message: Message) -> None:
        sent.append(message)

    async with playing(world) as playback:
        viewer = world.viewer()
        export = await playback.exports.plan(viewer, clip.capture_ms, clip.capture_ms + 1000)
        await export.open()
        answer = ExportResponse(playback, export, viewer, (0, export.length_bytes))
        world.change(flags=PRESENT | SUSPENDED)
        with refused("suspended"):
            await answer({"method": "GET"}, receive_nothing, send)
    assert sent == []


async def receive_nothing() -> Message:
    raise AssertionError("nothing is received")


async def test_who_makes_a_body_as_it_goes_is_told_to_stop(bitmap: EntitlementBitmap) -> None:
    client = Client(bitmap, stale_after=2)
    answer = PiecewiseAnswer(client.send, START, fresh(bitmap))
    with refused("host_stale"):
        await answer.send(bytes(5 * PIECE_BYTES), more=True)
    assert answer.has_begun
    assert len(client.body) == 2 * PIECE_BYTES
