"""Uploads that are larger than a chunk, through a worker: cut, all of it or nothing stored, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import trio

from ingest.budget import REQUEST_BYTES
from ingest.resumable import finishing
from ingest.resumable.cut_ts import TsCutter
from ingest.resumable.finishing import MOST_WAITING, PROBE_PARTS
from storage.contracts.given import Upload, erase, index_of
from storage.days import MS_PER_DAY
from storage.media_facts import continues, unpack_facts
from storage.rows.recordings import ChunkRow, SegmentCommit, SegmentState, Verdict
from storage.sql import SqlCatalog
from tests.ingest.conftest import Begin
from tests.ingest.resumable import long_media
from tests.ingest.resumable.long_media import MP4_RECIPES, TS_RECIPES, frames, packets
from tests.ingest.resumable.test_requests import begun, call, go_on, lapse, offset, parts
from tests.ingest.served import MIB, PATIENT, Client, Worker, until
from tests.ingest.world import NOW_MS, TODAY, video

ROOMY = {
    "limits": replace(PATIENT, max_chunk_bytes=MIB, max_upload_bytes=16 * MIB),
    "budget_bytes": 128 * MIB,
}
START_MS = NOW_MS - 600_000


def ts() -> bytes:
    return long_media.made(TS_RECIPES["h264"], 12)


def mp4() -> bytes:
    return long_media.made(MP4_RECIPES["base is file"], 12)


def rows(worker: Worker) -> list[ChunkRow]:
    return worker.catalog.chunks(1, 0, NOW_MS + MS_PER_DAY, limit=100)


def kept(worker: Worker) -> bytes:
    """What is stored of it, with its init segment before it, where it has one."""
    found = rows(worker)
    init = worker.catalog.init(1, unpack_facts(found[0].facts).parameters, found[0].expires_on)
    return (b"" if init is None else worker.plain(init)) + b"".join(map(worker.plain, found))


def is_listed_as_one(found: list[ChunkRow], start_ms: int = START_MS) -> None:
    assert found[0].capture_ms == start_ms
    for before, after in pairwise(found):
        facts = unpack_facts(before.facts), unpack_facts(after.facts)
        assert continues(*facts)
        ticks = facts[1].times.first_ticks - facts[0].times.first_ticks  # type: ignore[union-attr]
        assert abs(after.capture_ms - before.capture_ms - ticks / 90) <= 1


@pytest.mark.parametrize("media", [ts, mp4])
async def test_it_becomes_chunks_that_play_back_as_one(begin: Begin, media: object) -> None:
    data = media()  # type: ignore[operator]
    worker = await begin(**ROOMY)
    client = await worker.connect()
    path = await begun(client, data, capture_ms=START_MS)
    broken = await worker.connect()
    await broken.send(call(worker, "PATCH", path, data[: MIB + 5000], length=len(data), Upload_Offset="0"))
    await until(lambda: any(c.body_bytes == 5000 for c in worker.connections))
    assert rows(worker) == []
    broken.reset()
    with trio.fail_after(10):
        while await offset(client, path) != MIB + 5000:  # noqa: ASYNC110
            await trio.sleep(0.01)
    reply = await go_on(client, path, MIB + 5000, data[MIB + 5000 :])
    assert (reply.status, reply.headers["upload-offset"]) == (204, str(len(data)))
    found = rows(worker)
    assert len(found) > 2
    assert all(row.length <= MIB for row in found)
    is_listed_as_one(found)
    assert packets(kept(worker)) == packets(data)
    assert frames(kept(worker)) == frames(data)
    assert (worker.stats.chunks, worker.stats.chunk_bytes) == (len(found), len(data))
    assert await offset(client, path) == len(data)
    assert (await go_on(client, path, len(data), b"")).status == 204
    assert list(worker.catalog.broken_rows()) == []


async def test_without_a_time_it_ends_where_it_was_begun(begin: Begin) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    path = await begun(client, ts(), capture_ms=None)
    worker.clock.ms += 5000
    assert (await go_on(client, path, 0, ts())).status == 204
    found = rows(worker)
    assert found[-1].capture_ms + found[-1].duration_ms == pytest.approx(NOW_MS, abs=3)
    is_listed_as_one(found, found[0].capture_ms)


async def test_over_midnight_each_chunk_is_of_its_day(begin: Begin) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    start_ms = TODAY * MS_PER_DAY - 6000
    path = await begun(client, mp4(), capture_ms=start_ms)
    assert (await go_on(client, path, 0, mp4())).status == 204
    found = rows(worker)
    days = [row.capture_ms // MS_PER_DAY for row in found]
    assert set(days) == {TODAY - 1, TODAY}
    assert [row.expires_on for row in found] == [day + 31 for day in days]
    is_listed_as_one(found, start_ms)
    inits = {unpack_facts(row.facts).parameters for row in found}
    assert len(inits) == 1
    for day in set(days):
        assert worker.catalog.init(1, next(iter(inits)), day + 31) is not None


async def unfinished(client: Client, data: bytes) -> str:
    """All of it but its last byte is stored."""
    path = await begun(client, data, capture_ms=START_MS)
    assert (await go_on(client, path, 0, data[:-1])).status == 204
    return path


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_commit_that_fails_is_done_once_by_the_next_request(begin: Begin, fault: str) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    path = await unfinished(client, ts())
    worker.catalog.faults["commit_whole"] = fault
    assert (await go_on(client, path, len(ts()) - 1, ts()[-1:])).code == "not_stored"
    worker.catalog.faults.clear()
    await until(lambda: worker.health.up)
    assert bool(rows(worker)) == (fault == "after"), "all or nothing"
    assert await offset(client, path) == len(ts()) - (fault == "before")
    reply = await go_on(client, path, len(ts()) - 1, ts()[-1:])
    assert (reply.status, reply.code) == ((204, "") if fault == "before" else (409, "upload_finished"))
    assert frames(kept(worker)) == frames(ts())
    states = {row.state for row in worker.catalog.segments(after_id=0, limit=1000)}
    assert states <= {SegmentState.COMMITTED, SegmentState.PREPARED}, "what was in vain waits for the sweep"


async def test_of_two_that_finish_it_at_once_one_does(begin: Begin) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    path = await unfinished(client, ts())
    others = [await worker.connect() for _ in range(3)]
    for other in others:
        await other.send(call(worker, "PATCH", path, ts()[-1:], Upload_Offset=str(len(ts()) - 1)))
    replies = [await other.reply() for other in others]
    assert [reply.status for reply in replies] == [204] * 3
    assert worker.stats.chunks == len(rows(worker))
    assert frames(kept(worker)) == frames(ts())


def commit_beside(worker: Worker, capture_ms: int, expires_on: int) -> None:
    """Another worker stores something."""
    [key] = worker.catalog.prepare(
        worker="w9", class_days=expires_on - TODAY - 1, expires_on=expires_on, count=1, now_ms=NOW_MS
    )
    segment = SegmentCommit(key.segment_id, expires_on, 100, 1, index_of(Upload(1, capture_ms)))
    [found] = SqlCatalog.commit(worker.catalog, [segment], now_ms=NOW_MS)
    assert found.tolist() == [Verdict.STORED]


def delete_beside(worker: Worker) -> None:
    worker.catalog.delete_range(
        1, START_MS + 5000, START_MS + 60_000, reason="", who="owner", now_ms=NOW_MS, delete_after_ms=NOW_MS
    )


def end_beside(worker: Worker) -> None:
    part = parts(worker)[0]
    commit_beside(worker, part.capture_ms // 8192 * 8192 + 1, part.expires_on)


@pytest.mark.parametrize(
    ("beside", "code"),
    [
        (lambda worker: commit_beside(worker, START_MS, TODAY + 31), "conflict"),
        (delete_beside, "deleted"),
        (lambda worker: erase(worker.catalog, 1), "terminated"),
        (end_beside, "upload_gone"),
    ],
)
async def test_what_is_decided_before_its_commit_leaves_nothing_of_it(
    begin: Begin, beside: Callable[[Worker], None], code: str
) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    path = await unfinished(client, ts())
    worker.catalog.commit_open.clear()
    await client.send(call(worker, "PATCH", path, ts()[-1:], Upload_Offset=str(len(ts()) - 1)))
    await until(lambda: worker.catalog.asked_whole > 0)
    await trio.to_thread.run_sync(beside, worker)
    before = rows(worker)
    worker.catalog.commit_open.set()
    assert (await client.reply()).code == code
    assert rows(worker) == before


async def test_rights_are_asked_again_when_it_is_cut(begin: Begin) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    path = await unfinished(client, ts())
    await worker.uploads.cutting.acquire()
    await client.send(call(worker, "PATCH", path, ts()[-1:], Upload_Offset=str(len(ts()) - 1)))
    await until(lambda: worker.uploads.cutting.statistics().tasks_waiting > 0)
    lapse(worker)
    worker.clock.ms += 200
    worker.uploads.cutting.release()
    assert (await client.reply()).code == "plan_lapsed"
    assert rows(worker) == []


async def test_one_without_a_time_gives_way(begin: Begin) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    path = await begun(client, ts(), capture_ms=None)
    assert (await go_on(client, path, 0, ts())).status == 204
    first = rows(worker)
    other = ts()[:-188]
    path = await begun(client, other, capture_ms=None)
    assert (await go_on(client, path, 0, other)).status == 204
    assert len(rows(worker)) == 2 * len(first)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lambda: long_media.made(f"{long_media.NOISE} {long_media.H264} -f mp4", 12), "does not come first"),
        (
            lambda: long_media.made(f"{long_media.NOISE} {long_media.H264} -movflags +faststart -f mp4", 12),
            "without",
        ),
        (lambda: long_media.made(f"{long_media.NOISE} {long_media.H264} -f matroska", 12), "Matroska"),
    ],
)
async def test_other_media_is_refused_at_its_first_bytes(begin: Begin, data: object, why: str) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    whole = data()  # type: ignore[operator]
    path = await begun(client, whole)
    for size in (5, 400_000):
        at = await offset(client, path)
        reply = await go_on(client, path, at, whole[at:size])
        if size == 5:
            assert reply.status == 204
    assert (reply.status, reply.code) == (415, "not_cuttable")
    assert why in reply.body.decode()
    assert "ffmpeg" in reply.body.decode()
    assert await offset(client, path) == 5


async def test_what_has_no_place_to_cut_is_refused_at_its_end_and_not_looked_at_again(begin: Begin) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    data = video(3 * MIB)
    path = await begun(client, data)
    reply = await go_on(client, path, 0, data)
    assert (reply.status, reply.code) == (415, "not_cuttable")
    assert rows(worker) == []
    assert await offset(client, path) == len(data) - 1
    async with worker.uploads.cutting:  # it does not wait for its turn
        for _ in range(3):
            assert (await go_on(client, path, len(data) - 1, data[-1:])).code == "not_cuttable"


async def test_of_several_that_finish_it_for_nothing_one_looks_at_it(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[TsCutter] = []

    def counted(most_bytes: int) -> TsCutter:
        looked.append(TsCutter(most_bytes))
        return looked[-1]

    monkeypatch.setattr(finishing, "TsCutter", counted)
    worker = await begin(**ROOMY)
    data = video(3 * MIB)
    path = await unfinished(await worker.connect(), data)
    others = [await worker.connect() for _ in range(4)]
    await worker.uploads.cutting.acquire()
    for other in others:
        await other.send(call(worker, "PATCH", path, data[-1:], Upload_Offset=str(len(data) - 1)))
    await until(lambda: worker.uploads.cutting.statistics().tasks_waiting == len(others))
    worker.uploads.cutting.release()
    assert {(await other.reply()).code for other in others} == {"not_cuttable"}
    assert len(looked) == 1


async def test_while_it_is_made_chunks_of_a_byte_is_held(begin: Begin) -> None:
    worker = await begin(**ROOMY)
    client, others = await worker.connect(), [await worker.connect() for _ in range(MOST_WAITING + 1)]
    paths = [await begun(client, ts(), capture_ms=START_MS - 60_000 * n) for n in range(len(others))]
    await worker.uploads.cutting.acquire()
    for other, path in zip(others, paths, strict=True):
        await other.send(call(worker, "PATCH", path, ts(), Upload_Offset="0"))
    await until(lambda: worker.uploads.cutting.statistics().tasks_waiting == MOST_WAITING)
    await until(lambda: worker.budget.in_use_bytes == MOST_WAITING * (REQUEST_BYTES + 1))
    worker.uploads.cutting.release()
    replies = [await other.reply() for other in others]
    assert sorted(reply.status for reply in replies) == [204] * MOST_WAITING + [503]


async def test_of_a_beginning_in_many_parts_it_is_told_at_its_end(begin: Begin) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    whole = long_media.made(f"{long_media.NOISE} {long_media.H264} -f mp4", 12)
    path = await begun(client, whole)
    for at in range(PROBE_PARTS + 1):
        assert (await go_on(client, path, at, whole[at : at + 1])).status == 204
    at = PROBE_PARTS + 1
    assert (await go_on(client, path, at, whole[at:])).code == "not_cuttable"
    assert await offset(client, path) == len(whole) - 1


async def test_its_end_must_not_be_in_the_future(begin: Begin) -> None:
    worker = await begin(**ROOMY)
    client = await worker.connect()
    path = await begun(client, ts(), capture_ms=NOW_MS + 595_000)
    assert (await go_on(client, path, 0, ts())).code == "clock_ahead"
    assert rows(worker) == []
