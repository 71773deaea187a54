"""Devices whose clock is wrong, seconds that come twice, times in other units."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from storage.days import MS_PER_DAY
from storage.rows.devices import DeviceFacts
from tests.ingest.served import Client, Worker
from tests.ingest.world import NOW_MS, TODAY, video

DATA = video(400)


@pytest.mark.parametrize(
    ("capture_ms", "status", "code", "hint"),
    [
        (5000, 410, "clock_behind", ""),
        (NOW_MS - 300 * MS_PER_DAY, 410, "clock_behind", ""),
        (NOW_MS // 1000, 410, "clock_behind", "in seconds"),
        (NOW_MS - 40 * MS_PER_DAY, 410, "expired", ""),
        (NOW_MS + 3_600_000, 422, "clock_ahead", ""),
        (NOW_MS + 400 * MS_PER_DAY, 403, "not_entitled_at_capture", ""),
    ],
)
async def test_a_wrong_clock_is_told_what_time_it_is(
    client: Client, capture_ms: int, status: int, code: str, hint: str
) -> None:
    reply = await client.ask(DATA, capture_ms)
    told = json.loads(reply.body)
    assert (reply.status, told["error"], told["server_ms"]) == (status, code, NOW_MS)
    assert reply.headers["date"].endswith("GMT")
    assert hint in told["detail"]
    assert bool(hint) == ("milliseconds" in told["detail"])


async def test_seconds_in_place_of_a_chunks_milliseconds_are_told(client: Client) -> None:
    frames = b"".join(video(188, number) for number in range(100))
    reply = await client.ask(frames, NOW_MS, Clip_Duration_Ms="4")
    told = json.loads(reply.body)
    assert (reply.status, told["error"]) == (400, "malformed")
    assert "milliseconds" in told["detail"]
    assert (await client.ask(frames, NOW_MS, Clip_Duration_Ms="4000")).status == 201


async def test_a_second_that_comes_twice_moves_on(client: Client, worker: Worker) -> None:
    """Names in seconds: chunks shorter than one, or a clock that is set back one. Each keeps its place when it is sent
    again."""
    name = f"{NOW_MS // 1000}.ts"
    bodies = [video(400, number) for number in range(12)]
    first = [(await client.ask(body, name)).status for body in bodies]
    again = [(await client.ask(body, name)).status for body in bodies]
    assert (first, again) == ([201] * 12, [200] * 12)
    # Each but the first is put once more, at a time that is free, or where it is already.
    assert worker.store.asked["put"] <= 12 + 11 + 12 + 11 + 1, (
        "a put for each time that is taken costs too much"
    )
    rows = worker.catalog.chunks(1, NOW_MS, NOW_MS + 1000, limit=100)
    assert [worker.stored(1, row.capture_ms) for row in rows] == bodies


@pytest.mark.parametrize("name", [f"{NOW_MS}.ts", NOW_MS])
async def test_a_millisecond_is_one_chunks(client: Client, name: str | int) -> None:
    assert (await client.ask(DATA, name)).status == 201
    assert (await client.ask(video(400, 2), name)).status == 409


async def test_a_chunk_that_began_before_midnight_of_a_plans_first_day_is_dated_at_midnight(
    client: Client, worker: Worker
) -> None:
    """It was admitted for the day on which it came, and no plan covers the day before."""
    worker.clock.ms = TODAY * MS_PER_DAY + 1000

    def begins_today(facts: DeviceFacts) -> DeviceFacts:
        (plan,) = facts.plans
        return replace(facts, plans=(replace(plan, starts_on=TODAY),))

    worker.change(1, begins_today)
    frames = b"".join(video(188, number) for number in range(100))
    assert (await client.ask(frames, "stream.ts")).status == 201
    assert worker.stored(1, TODAY * MS_PER_DAY) == frames
