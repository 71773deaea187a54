"""service.playback on a real small world: catalog, keys and bitmap on disk, segments in a store in memory.

`World` is that; tests/service/test_api.py stands on it too. Invariants are those of docs/design.md.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from ingest.media import Media
from retention.bitmap import ERASED, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap, Row
from retention.tokens import mint_device_token, mint_viewer_token
from service.playback import (
    MAX_TIME_MS,
    Memory,
    Page,
    Playback,
    PlaybackServices,
    Refused,
    Viewer,
    live_anchor,
)
from storage.catalog import PlanRow, SegmentCommit, Verdict
from storage.checksums import crc32, crc64nvme
from storage.days import MS_PER_DAY, month_of_day, ms_of_day
from storage.errors import ClipkeepError, CorruptError, KeyDestroyed, StoreUnavailable
from storage.faults import Fault, FaultKind, FaultyStore, no_faults
from storage.keys import KeyId, KeyStore
from storage.memory import MemoryStore
from storage.segment import MAGIC, SegmentWriter, buffer_bytes
from storage.sqlite import SqliteCatalog

TODAY = 20_640
"""The world's day at first: its clock stands at noon."""
NOON_MS = ms_of_day(TODAY) + MS_PER_DAY // 2
RETENTION_DAYS = 7
EXPIRES_ON = TODAY + RETENTION_DAYS + 1
CHUNK_MS = 4000
HOUR_MS = 3_600_000


class HandClock:
    """A clock that stands still until it is set."""

    def __init__(self, now_ms: int) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms


@dataclass(frozen=True, slots=True)
class Clip:
    """A chunk to be stored."""

    capture_ms: int
    data: bytes
    media: Media = Media.MPEG_TS
    duration_ms: int = CHUNK_MS
    expires_on: int = EXPIRES_ON


class World:
    """A service's data with one device, number 1, entitled from yesterday for a month."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock(NOON_MS)
        self.key_store = KeyStore.create(folder / "keys")
        self.catalog = SqliteCatalog.create(folder / "catalog.db")
        EntitlementBitmap.create(folder / "bitmap", 1000)
        self.bitmap = EntitlementBitmap.open(folder / "bitmap", writable=True)
        self.objects = MemoryStore()
        self.store = FaultyStore(self.objects, sleep=time.sleep)
        assert self.add_device() == 1

    def close(self) -> None:
        self.bitmap.close()
        self.catalog.close()
        self.key_store.close()

    def services(self, **limits: Any) -> PlaybackServices:
        return PlaybackServices(**self.parts(), **limits)

    def parts(self) -> dict[str, Any]:
        return {
            "catalog": self.catalog,
            "store": self.store,
            "key_store": self.key_store,
            "bitmap": self.bitmap,
            "clock": self.clock,
            "token_secret": self.key_store.token_secret,
        }

    def add_device(self, days: int = 30) -> int:
        plan = PlanRow(0, "monthly", TODAY - 1, TODAY - 2 + days, RETENTION_DAYS)
        facts = self.catalog.add_devices(1, account=1, plans=[plan], now_ms=NOON_MS)[0]
        row = Row(
            PRESENT, RETENTION_DAYS, TODAY - 1, facts.token_generation, facts.erase_epoch, (1 << days) - 1
        )
        with self.bitmap.locked():
            self.bitmap.write(facts.device, row)
        return facts.device

    def change(self, device: int = 1, **fields: int) -> None:
        """Another bitmap row for a device."""
        row = self.bitmap.read(device)
        assert row is not None
        with self.bitmap.locked():
            self.bitmap.write(device, replace(row, **fields))

    def token(self, device: int = 1, hours: float = 24, generation: int | None = None) -> str:
        row = self.bitmap.read(device)
        now_generation = row.token_generation if row else 1
        return mint_viewer_token(
            self.key_store.token_secret,
            device,
            now_generation if generation is None else generation,
            int(self.clock.ms / 1000 + hours * 3600),
        )

    def viewer(self, device: int = 1) -> Viewer:
        return Viewer(device, self.token(device))

    def keep(self, *clips: Clip, device: int = 1, epoch: int = 0) -> None:
        """Store chunks of one expiry day as ingest does: a segment, its object, its commit."""
        expires_on = clips[0].expires_on
        key_id = KeyId(device, epoch, month_of_day(expires_on))
        cipher = AESGCM(self.key_store.ensure([key_id])[key_id])
        size = sum(len(clip.data) + 16 for clip in clips)
        writer = SegmentWriter(
            bytearray(buffer_bytes(size, max(len(clip.data) for clip in clips)) + 64 * 300)
        )
        for number, clip in enumerate(clips):
            writer.append(
                cipher,
                (number + 1).to_bytes(4, "little") + time.time_ns().to_bytes(8, "little"),
                clip.data,
                device=device,
                capture_ms=clip.capture_ms,
                epoch=epoch,
                duration_ms=clip.duration_ms,
                crc32=crc32(clip.data),
                crc64=crc64nvme(clip.data),
                media=clip.media,
            )
        index = writer.index()
        prepared = self.catalog.prepare(
            worker="w", class_days=RETENTION_DAYS, expires_on=expires_on, count=1, now_ms=self.clock.ms
        )[0]
        body, crc = writer.seal(
            class_days=RETENTION_DAYS, expires_on=expires_on, segment_id=prepared.segment_id
        )
        self.store.put(prepared.key, body, crc)
        commit = SegmentCommit(prepared.segment_id, expires_on, len(body), crc, index)
        verdicts = self.catalog.commit([commit], now_ms=self.clock.ms)[0]
        assert set(verdicts.tolist()) == {Verdict.STORED}

    def during_next_fetch(self, act: Callable[[], object]) -> None:
        """Do something while the next chunk is on its way out of the store."""

        def plan(op: str, key: str, nth: int) -> Fault | None:
            if op == "get_range":
                self.store.plan = no_faults
                act()
            return None

        self.store.plan = plan


def clips(count: int, *, start_ms: int = NOON_MS - HOUR_MS, size: int = 1880, **more: Any) -> list[Clip]:
    """Contiguous chunks of different content."""
    return [
        Clip(start_ms + i * CHUNK_MS, (b"G" + i.to_bytes(4, "big") + bytes(183)) * (size // 188), **more)
        for i in range(count)
    ]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@asynccontextmanager
async def playing(world: World, **limits: Any) -> AsyncIterator[Playback]:
    playback = Playback(world.services(**limits))
    async with trio.open_nursery() as nursery:
        await nursery.start(playback.run)
        yield playback
        assert playback.memory.held_bytes == 0
        assert playback.exports == 0
        nursery.cancel_scope.cancel()


async def fetched(playback: Playback, viewer: Viewer, capture_ms: int) -> bytes:
    read = await playback.read(viewer, await playback.find(viewer, capture_ms))
    data = read.data
    read.release()
    return data


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code == code


def captures(page: Page) -> list[int]:
    return [row.capture_ms for _, rows in page.spans for row in rows]


async def listed(playback: Playback, viewer: Viewer, limit: int = 1000) -> list[int]:
    return await playback.page(viewer, 0, MAX_TIME_MS, limit=limit, finish=captures)


async def exported(playback: Playback, viewer: Viewer, write: Callable[[bytes], Any] | None = None) -> bytes:
    export = await playback.export(viewer, 0, MAX_TIME_MS)
    parts: list[bytes] = []

    async def keep(data: bytes) -> None:
        parts.append(data)
        if write is not None:
            await write(data)

    try:
        await export.open()
        await export.stream(keep)
    finally:
        export.close()
    data = b"".join(parts)
    assert len(data) == export.length_bytes
    return data


async def test_what_was_kept_is_listed_and_read_byte_for_byte(world: World) -> None:
    kept = clips(20)
    world.keep(*kept)
    viewer = world.viewer()
    async with playing(world) as playback:
        assert await listed(playback, viewer) == [clip.capture_ms for clip in kept]
        for clip in kept:
            assert await fetched(playback, viewer, clip.capture_ms) == clip.data
        assert await exported(playback, viewer) == b"".join(clip.data for clip in kept)


# --- who may (invariant 2) ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"flags": PRESENT | SUSPENDED}, "suspended"),
        ({"flags": PRESENT | TERMINATED}, "terminated"),
        ({"flags": PRESENT | ERASED}, "erased"),
        ({"days": 1}, "plan_lapsed"),  # entitled yesterday only
        ({"token_generation": 2}, "bad_token"),
        ({"flags": 0}, "bad_token"),
        ({"flags": PRESENT | SUSPENDED | TERMINATED, "days": 0}, "suspended"),
        ({"flags": PRESENT | SUSPENDED, "token_generation": 2}, "bad_token"),
        ({"erase_epoch": 1}, "not_found"),
    ],
)
@pytest.mark.parametrize("moment", ["before", "after the row was found", "while it is fetched"])
async def test_every_denial_wins_at_every_moment(
    world: World, fields: dict[str, int], code: str, moment: str
) -> None:
    world.keep(*clips(1))
    viewer, at_ms = world.viewer(), clips(1)[0].capture_ms
    async with playing(world) as playback:
        assert await fetched(playback, viewer, at_ms) == clips(1)[0].data  # the key is in the cache now
        row = await playback.find(viewer, at_ms)
        if moment == "while it is fetched":
            world.during_next_fetch(lambda: world.change(**fields))
        else:
            world.change(**fields)
        with refused(code):
            if moment == "before":
                await playback.find(viewer, at_ms)
            await playback.read(viewer, row)
        if moment == "after the row was found":
            with refused(code):
                await playback.readable(viewer, row)
        if code != "not_found":
            with refused(code):
                await listed(playback, viewer)


async def test_a_device_of_another_epoch_lists_nothing(world: World) -> None:
    """Rows of before an erasure, though the catalog that answers has not heard of it yet."""
    world.keep(*clips(3))
    async with playing(world) as playback:
        assert len(await listed(playback, world.viewer())) == 3
        world.change(erase_epoch=1)
        assert await listed(playback, world.viewer()) == []
        assert "chunks/" not in await playback.recorded(world.viewer(), 0, MAX_TIME_MS, finish=str)
        with refused("not_found"):
            await exported(playback, world.viewer())


async def test_tokens_are_of_one_device_one_generation_and_one_time(world: World) -> None:
    other = world.add_device()
    world.keep(*clips(1))
    at_ms, secret = clips(1)[0].capture_ms, world.key_store.token_secret
    bad = [
        "",
        "nonsense",
        world.token(other),
        world.token(generation=0),
        world.token(generation=2),
        world.token()[:-1] + "!",
        mint_device_token(secret, 1, 1),
        mint_viewer_token(b"another secret of 32 bytes......", 1, 1, 2**40),
    ]
    async with playing(world) as playback:
        for token in bad:
            with refused("bad_token"):
                await playback.find(Viewer(1, token), at_ms)
        for device in (0, 2**32 - 1, other):
            with refused("bad_token"):
                await playback.find(Viewer(device, world.token()), at_ms)
        viewer = Viewer(1, world.token(hours=1))
        world.clock.ms += HOUR_MS - 1
        await playback.find(viewer, at_ms)
        world.clock.ms += 1
        with refused("bad_token"):
            await playback.find(viewer, at_ms)


async def test_the_last_millisecond_of_the_last_day(world: World) -> None:
    """Rows, objects and keys are all still there (invariant 2)."""
    device = world.add_device(days=4)  # yesterday to the day after tomorrow
    world.keep(*clips(1), device=device)
    viewer = Viewer(device, world.token(device, hours=1000))
    async with playing(world) as playback:
        world.clock.ms = ms_of_day(TODAY + 3) - 1
        assert await fetched(playback, viewer, clips(1)[0].capture_ms) == clips(1)[0].data
        row = await playback.find(viewer, clips(1)[0].capture_ms)
        world.clock.ms += 1
        with refused("plan_lapsed"):
            await playback.read(viewer, row)
        world.clock.ms -= 1
        world.during_next_fetch(lambda: setattr(world.clock, "ms", ms_of_day(TODAY + 3)))
        with refused("plan_lapsed"):
            await playback.read(viewer, row)


async def test_a_chunk_expires_at_midnight_and_a_clock_set_back_does_not_bring_it_back(world: World) -> None:
    early, late = clips(1, expires_on=TODAY + 2)[0], clips(1, start_ms=NOON_MS)[0]
    world.keep(early)
    world.keep(late)
    viewer = Viewer(1, world.token(hours=1000))
    async with playing(world) as playback:
        world.clock.ms = ms_of_day(TODAY + 2) - 1
        row = await playback.find(viewer, early.capture_ms)
        assert await listed(playback, viewer) == [early.capture_ms, late.capture_ms]
        world.clock.ms += 1
        with refused("expired"):
            await playback.read(viewer, row)
        with refused("expired"):
            await playback.find(viewer, early.capture_ms)
        assert await listed(playback, viewer) == [late.capture_ms]
        assert await exported(playback, viewer) == late.data
        assert str(early.capture_ms) not in await playback.recorded(viewer, 0, MAX_TIME_MS, finish=str)
        with world.bitmap.locked():
            world.bitmap.raise_closed_through(TODAY + 2)
        world.clock.ms = NOON_MS  # invariant 12
        with refused("expired"):
            await playback.read(viewer, row)


async def test_a_row_being_written_is_asked_again_later(world: World) -> None:
    world.keep(*clips(1))
    viewer = world.viewer()
    async with playing(world) as playback:
        at = (4096 + 64) // 2  # the sequence number of row 1
        world.bitmap._seqs[at] |= 1
        with refused("overloaded"):
            await playback.find(viewer, clips(1)[0].capture_ms)
        world.bitmap._seqs[at] += 1
        await playback.find(viewer, clips(1)[0].capture_ms)


async def test_what_is_deleted_is_not_found_any_more(world: World) -> None:
    kept = clips(3)
    world.keep(*kept)
    world.catalog.delete_range(
        1,
        kept[1].capture_ms,
        kept[2].capture_ms,
        reason="r",
        who="w",
        now_ms=NOON_MS,
        delete_after_ms=NOON_MS,
    )
    async with playing(world) as playback:
        assert await listed(playback, world.viewer()) == [kept[0].capture_ms, kept[2].capture_ms]
        with refused("not_found"):
            await playback.find(world.viewer(), kept[1].capture_ms)


# --- the bytes (invariant 11) -------------------------------------------------------------------------------


async def _corrupt(world: World, viewer: Viewer, at_ms: int) -> str:
    async with playing(world) as playback:
        row = await playback.find(viewer, at_ms)
        with pytest.raises(CorruptError) as caught:
            await playback.read(viewer, row)
        return caught.value.code


def _sql(world: World, statement: str, *values: object) -> None:
    with world.catalog._db.write() as connection:
        connection.execute(statement.format(table=f"chunks_{EXPIRES_ON}"), values)


@pytest.mark.parametrize("place", ["first", "middle", "tag"])
async def test_flipped_bits_are_never_served(world: World, place: str) -> None:
    world.keep(*clips(1))
    key, body = next(iter(world.objects.objects.items()))
    length = len(clips(1)[0].data)
    at = len(MAGIC) + {"first": 0, "middle": length // 2, "tag": length}[place]
    world.objects.objects[key] = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    assert await _corrupt(world, world.viewer(), clips(1)[0].capture_ms) == "chunk_corrupt"


async def test_a_row_that_points_at_anothers_bytes_fails(world: World) -> None:
    other = world.add_device()
    world.keep(*clips(2))
    world.keep(*clips(2), device=other)
    first, second = (clip.capture_ms for clip in clips(2))
    nonce_and_place = "SELECT segment_id, offset, nonce FROM {table} WHERE device = ? AND capture_ms = ?"
    point = f"UPDATE {{table}} SET (segment_id, offset, nonce) = ({nonce_and_place})"
    _sql(world, f"{point} WHERE device = 1 AND capture_ms = ?", other, first, first)
    assert await _corrupt(world, world.viewer(), first) == "chunk_corrupt"
    _sql(world, f"{point} WHERE device = 1 AND capture_ms = ?", 1, second, first)
    assert await _corrupt(world, world.viewer(), first) == "chunk_corrupt"


@pytest.mark.parametrize(
    "lie", ["crc32 = (crc32 + 1) % 4294967296", "length = length - 1", "length = length + 100000"]
)
async def test_a_row_that_lies_about_its_chunk_fails(world: World, lie: str) -> None:
    world.keep(*clips(1))
    _sql(world, f"UPDATE {{table}} SET {lie}")
    assert await _corrupt(world, world.viewer(), clips(1)[0].capture_ms) == "chunk_corrupt"


async def test_a_segment_that_is_gone_and_a_store_that_is_down(world: World) -> None:
    world.keep(*clips(1))
    viewer, at_ms = world.viewer(), clips(1)[0].capture_ms
    async with playing(world) as playback:
        row = await playback.find(viewer, at_ms)
        world.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE)
        with pytest.raises(StoreUnavailable):
            await playback.read(viewer, row)
        world.store.plan = no_faults
        world.objects.objects.clear()
        with pytest.raises(CorruptError) as caught:
            await playback.read(viewer, row)
        assert caught.value.code == "object_missing"


async def test_a_destroyed_key_is_the_end_of_what_it_encrypted(world: World) -> None:
    world.keep(*clips(1))
    world.key_store.destroy_device(1, below_epoch=1)
    viewer = world.viewer()
    async with playing(world) as playback:
        row = await playback.find(viewer, clips(1)[0].capture_ms)
        with pytest.raises(KeyDestroyed):
            await playback.read(viewer, row)
        with pytest.raises(KeyDestroyed):
            await playback.readable(viewer, row)


@pytest.mark.parametrize(
    "end",
    [
        lambda world: world.change(erase_epoch=1),
        lambda world: world.change(flags=PRESENT | ERASED),
        lambda world: world.change(flags=0),
        lambda world: setattr(world.clock, "ms", ms_of_day(EXPIRES_ON + 31)),
    ],
    ids=["erased", "erasing", "gone", "month over"],
)
async def test_keys_that_are_over_leave_memory(world: World, end: Callable[[World], None]) -> None:
    world.keep(*clips(1))
    async with playing(world, purge_every_s=0.01) as playback:
        await fetched(playback, world.viewer(), clips(1)[0].capture_ms)
        await trio.sleep(0.03)
        assert len(playback._keyring) == 1
        world.change(flags=PRESENT | SUSPENDED)  # may be lifted
        await trio.sleep(0.03)
        assert len(playback._keyring) == 1
        end(world)
        with trio.fail_after(5):
            while len(playback._keyring):  # noqa: ASYNC110
                await trio.sleep(0.005)


# --- listings -----------------------------------------------------------------------------------------------


async def test_pages_join_to_the_whole_and_spans_are_contiguous(world: World) -> None:
    kept = clips(5) + clips(6, start_ms=NOON_MS - HOUR_MS + 60_000)
    world.keep(*kept)
    async with playing(world) as playback:
        for limit in (1, 2, 4, 5, 6, 10, 11, 12):
            found: list[int] = []
            next_ms: int | None = 0
            while next_ms is not None:
                page = await playback.page(
                    world.viewer(), next_ms, MAX_TIME_MS, limit=limit, finish=lambda page: page
                )
                for span, rows in page.spans:
                    assert span.chunk_count == len(rows)
                    assert (span.from_ms, span.to_ms) == (
                        rows[0].capture_ms,
                        rows[-1].capture_ms + CHUNK_MS,
                    )
                assert 1 <= len(captures(page)) <= limit
                found += captures(page)
                next_ms = page.next_ms
            assert found == [clip.capture_ms for clip in kept], limit
        whole = await playback.page(world.viewer(), 0, MAX_TIME_MS, limit=50, finish=lambda page: page)
        assert [len(rows) for _, rows in whole.spans] == [5, 6]


async def test_ranges_include_their_start_and_leave_out_their_end(world: World) -> None:
    kept = [clip.capture_ms for clip in clips(3)]
    world.keep(*clips(3))
    async with playing(world) as playback:
        for from_ms, to_ms, count in (
            (kept[0], kept[2], 2),
            (kept[0] + 1, kept[2], 1),
            (kept[0], kept[2] + 1, 3),
            (kept[0] - 1, kept[2] - 1, 2),
        ):
            text = await playback.recorded(world.viewer(), from_ms, to_ms, finish=str)
            assert text.count("#EXTINF") == count


async def test_a_listing_has_a_bound_that_it_may_reach(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.playback.PAGE_ROWS", 3)
    world.keep(*clips(10))
    async with playing(world, max_listed_chunks=10) as playback:
        text = await playback.recorded(world.viewer(), 0, MAX_TIME_MS, finish=str)
        assert text.count("#EXTINF") == 10
        world.keep(*clips(1, start_ms=NOON_MS))
        with refused("range_too_large"):
            await playback.recorded(world.viewer(), 0, MAX_TIME_MS, finish=str)
        with refused("range_too_large"):
            await exported(playback, world.viewer())


async def test_an_end_of_entitlement_while_a_listing_is_made_wins(world: World) -> None:
    world.keep(*clips(2))
    async with playing(world) as playback:

        def meanwhile(page: Page) -> Page:
            world.change(flags=PRESENT | SUSPENDED)
            return page

        with refused("suspended"):
            await playback.page(world.viewer(), 0, MAX_TIME_MS, limit=9, finish=meanwhile)
        world.change(flags=PRESENT)

        def midnight(text: str) -> str:
            world.clock.ms += MS_PER_DAY
            return text

        with refused("overloaded"):
            await playback.recorded(Viewer(1, world.token(hours=100)), 0, MAX_TIME_MS, finish=midnight)


def numbers(text: str) -> tuple[int, int, list[str]]:
    tags = dict(line.split(":", 1) for line in text.splitlines() if line.startswith("#") and ":" in line)
    uris = [line.split("?")[0] for line in text.splitlines() if line and not line.startswith("#")]
    return int(tags["#EXT-X-MEDIA-SEQUENCE"]), int(tags["#EXT-X-DISCONTINUITY-SEQUENCE"]), uris


@pytest.mark.parametrize("by_from", [False, True])
async def test_live_numbers_never_go_back_and_name_each_chunk_for_a_whole_step(
    world: World, by_from: bool
) -> None:
    """One viewing, through two steps of the anchor."""
    start_ms, step_ms = world.clock.ms, 100_000
    viewer = Viewer(1, world.token(hours=1))
    limits = {"live_window_ms": 12_000, "live_reach_ms": 20_000, "live_step_ms": step_ms}
    by_number: dict[int, str] = {}
    seen = (-1, -1)
    jumps = 0
    async with playing(world, max_listed_chunks=1000, **limits) as playback:
        for i in range(60):
            world.clock.ms = start_ms + i * CHUNK_MS
            world.keep(*clips(1, start_ms=world.clock.ms - CHUNK_MS))
            text = await playback.live(viewer, start_ms - CHUNK_MS if by_from else None, finish=str)
            sequence, breaks, uris = numbers(text)
            assert "#EXT-X-ENDLIST" not in text
            assert (sequence, breaks) >= seen
            assert sequence >= seen[0]
            assert breaks >= seen[1]
            jumps += sequence > seen[0] + 1 and seen[0] >= 0
            seen = (sequence, breaks)
            assert uris[-1] == f"chunks/{world.clock.ms - CHUNK_MS}.ts"
            assert len(uris) <= 4
            for number, uri in enumerate(uris, sequence):
                assert by_number.setdefault(number, uri) == uri
    assert jumps == 2
    if by_from:
        assert min(by_number) == 0


@given(
    st.integers(0, 2**50), st.integers(0, 2**42), st.integers(0, 10**7), st.integers(1, 10**8)
)  # a token may end in 30,000 years
def test_an_anchor_stays_for_a_step_and_is_never_after_what_it_must_reach(
    base_ms: int, reached_ms: int, later_ms: int, step_ms: int
) -> None:
    anchor_ms, step = live_anchor(base_ms, reached_ms, step_ms)
    assert reached_ms - step_ms < anchor_ms <= reached_ms
    assert (anchor_ms - base_ms) % step_ms == 0
    next_ms, next_step = live_anchor(base_ms, reached_ms + later_ms, step_ms)
    assert next_ms - anchor_ms == (next_step - step) * step_ms >= 0


# --- export -------------------------------------------------------------------------------------------------


async def test_an_export_leaves_mp4_out_and_says_when_there_is_nothing_else(world: World) -> None:
    video = clips(2)
    mp4 = [replace(clip, media=Media.MP4) for clip in clips(2, start_ms=NOON_MS)]
    viewer = world.viewer()
    async with playing(world) as playback:
        with refused("not_found"):
            await playback.export(viewer, 0, MAX_TIME_MS)
        world.keep(*mp4)
        with refused("only_mp4"):
            await playback.export(viewer, 0, MAX_TIME_MS)
        world.keep(*video)
        assert await exported(playback, viewer) == b"".join(clip.data for clip in video)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"flags": PRESENT | SUSPENDED}, "suspended"),
        ({"days": 1}, "plan_lapsed"),
        ({"erase_epoch": 1}, "not_found"),
    ],
)
async def test_an_export_ends_with_the_chunk_at_which_entitlement_was_lost(
    world: World, fields: dict[str, int], code: str
) -> None:
    """Even though the next chunks were read ahead, and are in memory."""
    world.keep(*clips(20))
    written = 0
    async with playing(world) as playback:

        async def write(data: bytes) -> None:
            nonlocal written
            written += 1
            if written == 5:
                await trio.sleep(0.05)  # all that may be read ahead is
                world.change(**fields)

        with refused(code):
            await exported(playback, world.viewer(), write)
        assert written == 5


async def test_an_export_ends_where_a_chunk_was_deleted_or_its_token_ended(world: World) -> None:
    kept = clips(20)
    world.keep(*kept)
    deleted = (kept[15].capture_ms, kept[15].capture_ms + 1)
    async with playing(world) as playback:
        written: list[bytes] = []

        async def delete(data: bytes) -> None:
            written.append(data)
            if len(written) == 5:
                world.catalog.delete_range(
                    1, *deleted, reason="r", who="w", now_ms=NOON_MS, delete_after_ms=NOON_MS
                )

        with refused("not_found"):
            await exported(playback, world.viewer(), delete)
        assert written == [clip.data for clip in kept[:15]]
        written.clear()

        async def wait(data: bytes) -> None:
            written.append(data)
            world.clock.ms += 1000

        with refused("bad_token"):
            await exported(playback, Viewer(1, world.token(hours=7 / 3600)), wait)
        assert len(written) == 7


@pytest.mark.parametrize("bad", [0, 1, 7])
async def test_an_export_never_skips_what_it_cannot_read(world: World, bad: int) -> None:
    kept = clips(10)
    world.keep(*kept)
    _sql(
        world,
        "UPDATE {table} SET crc32 = (crc32 + 1) % 4294967296 WHERE capture_ms = ?",
        kept[bad].capture_ms,
    )
    written: list[bytes] = []

    async def write(data: bytes) -> None:
        written.append(data)

    async with playing(world) as playback:
        with pytest.raises(CorruptError):
            await exported(playback, world.viewer(), write)
    assert written == [clip.data for clip in kept[:bad]]


async def _peak_while_exporting(world: World, sizes: Sequence[int], **limits: int) -> tuple[int, int]:
    """Most chunks and bytes held at once, while the client takes its time."""
    start_ms = NOON_MS - HOUR_MS
    world.keep(*(clips(1, start_ms=start_ms + i * CHUNK_MS, size=size)[0] for i, size in enumerate(sizes)))
    peak_bytes = peak_reads = 0
    async with playing(world, **limits) as playback:

        async def write(data: bytes) -> None:
            nonlocal peak_bytes, peak_reads
            before = world.store.asked["get_range"]
            await trio.sleep(0.02)
            peak_reads = max(peak_reads, world.store.asked["get_range"] - before)
            peak_bytes = max(peak_bytes, playback.memory.held_bytes)

        await exported(playback, world.viewer(), write)
    return peak_reads, peak_bytes


async def test_reading_ahead_is_bounded_in_chunks(world: World) -> None:
    reads, held_bytes = await _peak_while_exporting(world, [1880] * 20, read_ahead_chunks=3)
    assert 1 <= reads <= 3
    assert held_bytes == 4 * 1880


async def test_reading_ahead_is_bounded_in_bytes_but_a_large_chunk_passes(world: World) -> None:
    _, held_bytes = await _peak_while_exporting(
        world, [1880, 18800, 1880, 1880, 1880] * 2, read_ahead_bytes=5640
    )
    assert held_bytes == 18800


async def test_exports_are_bounded_and_a_cancelled_one_gives_everything_back(world: World) -> None:
    world.keep(*clips(20))
    viewer = world.viewer()
    async with playing(world, max_exports=1) as playback, trio.open_nursery() as nursery:
        first, second = [await playback.export(viewer, 0, MAX_TIME_MS) for _ in range(2)]
        await first.open()
        with refused("overloaded"):
            await second.open()
        second.close()
        assert playback.exports == 1

        async def never(data: bytes) -> None:
            await trio.sleep_forever()

        async def stuck() -> None:
            try:
                await first.stream(never)
            finally:
                first.close()

        nursery.start_soon(stuck)
        await trio.sleep(0.05)
        assert playback.memory.held_bytes > 0
        nursery.cancel_scope.cancel()


# --- memory -------------------------------------------------------------------------------------------------


async def test_memory_is_waited_for_and_refused_in_the_end(autojump_clock: trio.abc.Clock) -> None:
    memory = Memory(100, wait_s=5)
    await memory.take(60)
    await memory.take(40)
    with refused("overloaded"):
        await memory.take(1)
    assert memory.held_bytes == 100
    async with trio.open_nursery() as nursery:
        nursery.start_soon(memory.take, 50)
        await trio.sleep(4)
        memory.give(40)
        await trio.sleep(0.5)
        assert memory.held_bytes == 60
        memory.give(60)
    assert memory.held_bytes == 50
    memory.give(50)
    await memory.take(1000)  # alone it may pass the bound, else it never could
    with refused("overloaded"):
        await memory.take(1)


async def test_no_key_cache_no_bytes(world: World) -> None:
    world.keep(*clips(1))
    playback = Playback(world.services())
    assert not playback.running
    row = await playback.find(world.viewer(), clips(1)[0].capture_ms)
    with pytest.raises(ClipkeepError) as caught:
        await playback.read(world.viewer(), row)
    assert caught.value.code == "key_store_unavailable"
    assert playback.memory.held_bytes == 0
