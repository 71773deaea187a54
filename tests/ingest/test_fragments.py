"""fMP4 over a real socket: an init segment, its fragments, and who may have the one without the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.lowlevel
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest import inits
from ingest.inits import KnownInit
from ingest.media import Media
from storage.days import MS_PER_DAY, month_of_day
from storage.keys import KeyId
from storage.media_facts import Codec, unpack_facts
from storage.rows.recordings import ChunkRow, SentInit
from storage.segment import TAG_BYTES, decrypt_chunk
from tests.ingest.conftest import Begin
from tests.ingest.fmp4 import H264, VIDEO, camera, made
from tests.ingest.served import CLASS_DAYS, Client, Worker, until
from tests.ingest.world import NOW_MS, TODAY, video

INIT, FRAGMENTS = camera()
OTHER_INIT, OTHER_FRAGMENTS = camera("320x180")
MUTE_INIT, _ = made(f"{VIDEO} {H264}")
ENDS = TODAY + CLASS_DAYS + 1


def number(data: bytes) -> int:
    known = inits.read(1, data)
    assert isinstance(known, KnownInit)
    return known.init.number


def plain(worker: Worker, row: ChunkRow | None) -> bytes:
    assert row is not None
    key_id = KeyId(row.device, row.epoch, month_of_day(row.expires_on))
    stored = worker.objects.get_range(row.segment_key, row.offset, row.length + TAG_BYTES)
    cipher = AESGCM(worker.vault.get([key_id])[key_id])
    return decrypt_chunk(cipher, row.nonce, stored, device=row.device, capture_ms=row.capture_ms)


def init_of(worker: Worker, capture_ms: int = NOW_MS, device: int = 1) -> bytes:
    """What a reader of this fragment reads it by."""
    row = worker.catalog.chunk(device, capture_ms)
    assert row is not None
    assert row.media == Media.FMP4
    return plain(worker, worker.catalog.init(device, unpack_facts(row.facts).parameters, row.expires_on))


async def test_an_init_segment_and_its_fragments_are_stored(worker: Worker, client: Client) -> None:
    assert (await client.ask(INIT, "init.mp4")).status == 201
    assert worker.catalog.sent_init(1) == SentInit(0, number(INIT), ENDS, NOW_MS)
    for i, data in enumerate(FRAGMENTS):
        assert (await client.ask(data, NOW_MS + 1000 * i)).status == 201
        assert worker.stored(1, NOW_MS + 1000 * i) == data
        assert init_of(worker, NOW_MS + 1000 * i) == INIT
    row = worker.catalog.chunk(1, NOW_MS)
    assert row is not None
    assert abs(row.duration_ms - 1000) < 50
    assert unpack_facts(row.facts).video is Codec.H264
    assert len([r for r in worker.catalog.day_rows(ENDS) if r.capture_ms < 0]) == 1
    assert worker.budget.in_use_bytes == 0
    assert list(worker.catalog.broken_rows()) == []


async def test_each_request_on_a_connection_of_its_own(worker: Worker) -> None:
    """As stock ffmpeg sends them."""
    for name, data in (("init.mp4", INIT), *((f"seg{i}.m4s", data) for i, data in enumerate(FRAGMENTS))):
        client = await worker.connect()
        assert (await client.ask(data, name)).status == 201
        await client.close()
        worker.clock.ms += 1000
    rows = worker.catalog.chunks(1, 0, NOW_MS * 2, limit=9)
    assert [plain(worker, row) for row in rows] == list(FRAGMENTS)


async def test_all_in_one_go_without_waiting_for_answers(worker: Worker, client: Client) -> None:
    requests = [client.request(INIT, "init.mp4")]
    requests += [client.request(data, NOW_MS + i) for i, data in enumerate(FRAGMENTS)]
    requests.append(client.request(video(5000), NOW_MS + 10))
    await client.send(b"".join(requests))
    assert [(await client.reply()).status for _ in requests] == [201] * len(requests)
    assert init_of(worker, NOW_MS + 2) == INIT
    assert worker.budget.in_use_bytes == 0


async def test_the_same_again(worker: Worker, client: Client) -> None:
    for expected in (201, 200):
        assert (await client.ask(INIT, "init.mp4")).status == expected
        assert (await client.ask(FRAGMENTS[0])).status == expected
    assert (await client.ask(FRAGMENTS[1])).code == "conflict"


async def test_fragments_without_an_init_segment_are_refused(
    worker: Worker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inits, "WAIT_S", 0.2)
    reply = await client.ask(FRAGMENTS[1])
    assert (reply.status, reply.code) == (409, "no_init")
    assert worker.catalog.chunk(1, NOW_MS) is None
    assert (await client.ask(INIT, "init.mp4", device=2)).status == 201
    assert (await client.ask(FRAGMENTS[1])).code == "no_init"  # on a connection of another device's, too
    assert (await client.ask(video(5000), NOW_MS + 1)).status == 201
    assert worker.budget.in_use_bytes == 0


async def test_a_first_fragment_waits_for_the_init_segment_that_was_sent_with_it(worker: Worker) -> None:
    first, second = await worker.connect(), await worker.connect()
    await second.send(second.request(FRAGMENTS[0]))
    await trio.sleep(0.2)
    assert second.said_nothing()
    assert (await first.ask(INIT, "init.mp4")).status == 201
    assert (await second.reply()).status == 201
    assert init_of(worker) == INIT


async def test_a_first_fragment_is_not_read_by_the_header_of_an_earlier_start(worker: Worker) -> None:
    """The camera was started anew, in another size: its fragment is here before its init segment."""
    client = await worker.connect()
    assert (await client.ask(INIT, "init.mp4")).status == 201
    worker.clock.ms += inits.FRESH_MS + 5000
    first, second = await worker.connect(), await worker.connect()
    await second.send(second.request(OTHER_FRAGMENTS[0], NOW_MS + 5000))
    await trio.sleep(0.2)
    assert (await first.ask(OTHER_INIT, "init.mp4")).status == 201
    assert (await second.reply()).status == 201
    assert init_of(worker, NOW_MS + 5000) == OTHER_INIT


async def test_a_first_fragment_with_tracks_that_its_header_has_not_waits_for_another_one(
    worker: Worker,
) -> None:
    """The camera was started anew at once, with sound: its fragment is here before its init segment."""
    client = await worker.connect()
    assert (await client.ask(MUTE_INIT, "init.mp4")).status == 201
    first, second = await worker.connect(), await worker.connect()
    await second.send(second.request(FRAGMENTS[0]))
    await trio.sleep(0.2)
    assert second.said_nothing()
    assert (await first.ask(INIT, "init.mp4")).status == 201
    assert (await second.reply()).status == 201
    assert init_of(worker) == INIT


async def test_a_connection_of_before_does_not_read_the_fragments_of_a_new_start(worker: Worker) -> None:
    """A proxy keeps connections, and puts what a camera sends on any of them."""
    old, new = await worker.connect(), await worker.connect()
    assert (await old.ask(INIT, "init.mp4")).status == 201
    assert (await old.ask(FRAGMENTS[0])).status == 201
    assert (await new.ask(OTHER_INIT, "init.mp4")).status == 201
    for number in range(2):
        assert (await old.ask(OTHER_FRAGMENTS[number], NOW_MS + 5000 + 1000 * number)).status == 201
        assert init_of(worker, NOW_MS + 5000 + 1000 * number) == OTHER_INIT


async def test_after_a_restart_of_the_service_fragments_go_on(tmp_path: Path, begin: Begin) -> None:
    """The worker that comes next never saw the init segment. It reads what is stored, also for another day."""
    worker = await begin()
    client = await worker.connect()
    assert (await client.ask(INIT, "init.mp4")).status == 201
    assert (await client.ask(FRAGMENTS[0])).status == 201
    worker.uploads.inits._known.clear()
    other = await worker.connect()
    assert (await other.ask(FRAGMENTS[1], NOW_MS + 1000)).status == 201
    assert init_of(worker, NOW_MS + 1000) == INIT
    worker.clock.ms += MS_PER_DAY
    worker.uploads.inits._known.clear()
    late = await worker.connect()
    assert (await late.ask(FRAGMENTS[2], NOW_MS + MS_PER_DAY)).status == 201
    assert init_of(worker, NOW_MS + MS_PER_DAY) == INIT
    assert worker.catalog.sent_init(1) == SentInit(0, number(INIT), ENDS + 1, NOW_MS)


async def test_the_next_day_has_the_init_segment_for_itself(worker: Worker, client: Client) -> None:
    assert (await client.ask(INIT, "init.mp4")).status == 201
    assert (await client.ask(FRAGMENTS[0])).status == 201
    worker.clock.ms += MS_PER_DAY
    assert (await client.ask(FRAGMENTS[1], NOW_MS + MS_PER_DAY)).status == 201
    assert init_of(worker, NOW_MS + MS_PER_DAY) == INIT
    assert worker.catalog.init(1, number(INIT), ENDS + 1) is not None


async def test_an_init_segment_that_was_deleted_meanwhile_comes_along_again(
    worker: Worker, client: Client
) -> None:
    assert (await client.ask(INIT, "init.mp4")).status == 201
    assert (await client.ask(FRAGMENTS[0])).status == 201
    worker.catalog.note_init(1, SentInit(0, 1, ENDS, 0))  # so that deleting takes it along
    gone = worker.catalog.delete_range(
        1, NOW_MS, NOW_MS + 1, reason="", who="owner", now_ms=NOW_MS, delete_after_ms=NOW_MS
    )
    assert gone.chunks == 1
    assert worker.catalog.init(1, number(INIT), ENDS) is None
    assert (await client.ask(FRAGMENTS[1], NOW_MS + 1000)).status == 201
    assert init_of(worker, NOW_MS + 1000) == INIT
    assert worker.budget.in_use_bytes == 0


@pytest.mark.parametrize("what", ["track", "encrypted", "codec", "large", "cut", "empty"])
async def test_what_can_not_be_played_is_refused(worker: Worker, client: Client, what: str) -> None:
    header, fragment, expected = {
        "track": (made(f"{VIDEO} {H264}")[0], FRAGMENTS[0], (409, "no_init")),
        "encrypted": (INIT.replace(b"avc1", b"encv", 2), b"", (415, "encrypted")),
        "codec": (INIT.replace(b"avc1", b"vp31", 2), b"", (415, "unknown_codec")),
        "large": (INIT + b"\0\1\0\0free" + bytes((1 << 16) - 8), b"", (413, "too_large")),
        "cut": (INIT[:-50], b"", (415, "no_header")),
        "empty": (INIT, FRAGMENTS[0][: FRAGMENTS[0].index(b"mdat") - 4], (422, "no_frames")),
    }[what]
    reply = await client.ask(header, "init.mp4")
    if fragment:
        assert reply.status == 201
        reply = await client.ask(fragment)
    assert (reply.status, reply.code) == expected
    assert worker.catalog.chunk(1, NOW_MS) is None
    assert worker.budget.in_use_bytes == 0


async def test_what_is_remembered_is_bounded(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    known = worker.uploads.inits
    monkeypatch.setattr(inits, "HELD_BYTES", 3 * (len(INIT) + inits.READ_BYTES))
    for device in range(1, 8):
        read = inits.read(device, INIT)
        assert isinstance(read, KnownInit)
        known.remember(read)
    assert [device for device, _ in known._known] == [5, 6, 7]


async def test_a_catalog_that_is_away_is_no_refusal(worker: Worker, client: Client) -> None:
    worker.catalog.faults["commit"] = "before"
    assert (await client.ask(INIT, "init.mp4")).code == "not_stored"
    worker.catalog.faults.clear()
    await until(lambda: worker.health.up)
    assert (await client.ask(INIT, "init.mp4")).status == 201
