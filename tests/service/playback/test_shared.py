"""Share links in playback: they show their range, while they are links, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from retention.tokens import ShareClaims, mint_share_token, read_share_token
from service.agreement import shares
from service.agreement.desk import OPERATOR
from service.playback import Playback, Viewer
from service.playback import shared as shared_module
from service.playback.shared import IN_USE_NS, MAX_IN_USE, REFRESH_S, STALE_NS, SharesInUse
from storage.days import MAX_TIME_MS
from storage.errors import CatalogUnavailable
from storage.rows.shares import ShareRow
from tests.service.world import World, clips, exported, fetched, listed, playing, refused

CLIPS = clips(6)
FROM_MS, TO_MS = CLIPS[2].capture_ms, CLIPS[4].capture_ms
SHOWN = [CLIPS[2].capture_ms, CLIPS[3].capture_ms]


def linked(world: World, from_ms: int = FROM_MS, to_ms: int = TO_MS, hours: float = 1) -> tuple[Viewer, int]:
    row, token = shares.create(world.desk(), OPERATOR, 1, from_ms, to_ms, hours=hours)
    return Viewer(1, token), row.share_id


def opens(world: World, share: int) -> int:
    return world.catalog.shares_by_number([share])[0].opens


async def test_a_link_shows_its_range_and_nothing_else(world: World) -> None:
    world.keep(*CLIPS)
    viewer, _ = linked(world)
    async with playing(world) as playback:
        await playback.admit(viewer)
        assert await listed(playback, viewer) == SHOWN
        assert await exported(playback, viewer) == CLIPS[2].data + CLIPS[3].data
        for clip in CLIPS:
            if clip.capture_ms in SHOWN:
                assert await fetched(playback, viewer, clip.capture_ms) == clip.data
                continue
            with refused("not_found"):
                await playback.chunks.find(viewer, clip.capture_ms)
            row = world.catalog.chunk(1, clip.capture_ms)
            assert row is not None
            with refused("not_found"):
                await playback.chunks.read(viewer, row)
            with refused("not_found"):
                playback.confirming(viewer, row)()
        with refused("not_found"):
            await playback.exports.plan(viewer, 0, FROM_MS)
        with refused("range_only"):
            await playback.listings.live(viewer, None, finish=lambda live: live)
        text = await playback.listings.recorded(viewer, 0, MAX_TIME_MS, finish=lambda text: text)
        assert [f"chunks/{clip.capture_ms}.ts?" in text for clip in CLIPS] == [
            clip.capture_ms in SHOWN for clip in CLIPS
        ]
        with refused("bad_token"):
            await listed(playback, Viewer(2, viewer.token))
        found = await playback.shared(viewer.token)
        assert (found.viewer, found.from_ms, found.to_ms) == (viewer, FROM_MS, TO_MS)


async def test_what_is_watched_by_a_link_is_no_use_by_the_owner(world: World) -> None:
    world.keep(*CLIPS)
    viewer, _ = linked(world)
    services = world.services()
    playback = Playback(services)
    await playback.admit(viewer)
    playback.confirming(viewer)()
    assert services.used.take() == {}
    playback.confirming(world.viewer())()
    assert list(services.used.take().values()) == [[1]]


@pytest.mark.parametrize("in_use", [False, True])
async def test_a_revoked_link_is_none_within_the_bound(world: World, in_use: bool) -> None:
    world.keep(*CLIPS)
    viewer, share = linked(world)
    other, _ = linked(world)
    async with playing(world) as playback:
        if in_use:
            await playback.admit(viewer)
            assert await listed(playback, viewer) == SHOWN
        shares.revoke(world.desk(), OPERATOR, 1, share)
        if in_use:
            with trio.fail_after(STALE_NS / 1e9), refused("bad_token"):
                while True:
                    playback.confirming(viewer)()
                    await trio.sleep(0.02)
        else:
            await playback.admit(viewer)
        with refused("bad_token"):
            await listed(playback, viewer)
        await playback.admit(other)
        assert await listed(playback, other) == SHOWN


@pytest.mark.parametrize("fields", [{"token_generation": 2}, {"viewer_generation": 1}])
async def test_a_link_ends_with_the_tokens_of_viewers(world: World, fields: dict[str, int]) -> None:
    world.keep(*CLIPS)
    viewer, _ = linked(world)
    playback = Playback(world.services())
    await playback.admit(viewer)
    world.change(**fields)
    with refused("bad_token"):
        playback.confirming(viewer)()


async def test_a_link_expires(world: World) -> None:
    viewer, _ = linked(world, hours=1)
    playback = Playback(world.services())
    await playback.admit(viewer)
    playback.confirming(viewer)()
    world.clock.ms += 3_600_000
    with refused("bad_token"):
        playback.confirming(viewer)()


async def test_a_made_up_token_costs_no_query(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer, _ = linked(world)
    asked: list[Any] = []
    look = world.catalog.shares_by_number
    monkeypatch.setattr(
        world.catalog, "shares_by_number", lambda numbers: asked.append(numbers) or look(numbers)
    )
    playback = Playback(world.services())
    claims = read_share_token(world.vault.token_secret, viewer.token)
    made_up = mint_share_token(bytes(32), claims)
    for token in (made_up, viewer.token[:-1], "cks_", "cks_" + viewer.token[4:].swapcase()):
        with refused("bad_token"):
            await playback.admit(Viewer(1, token))
    assert asked == []
    await playback.admit(viewer)
    await playback.admit(viewer)
    assert asked == [[claims.share]], "and a genuine one costs one"


@pytest.mark.parametrize(
    "other", [{"device": 2}, {"from_ms": 0}, {"to_ms": TO_MS + 1}, {"expires_s": 2**40}, {"share": 999}]
)
async def test_a_token_is_of_its_own_row_only(world: World, other: dict[str, int]) -> None:
    """A catalog that was restored may have given its number to another link."""
    viewer, _ = linked(world)
    secret = world.vault.token_secret
    claims = replace(read_share_token(secret, viewer.token), **other)
    playback = Playback(world.services())
    stranger = Viewer(claims.device, mint_share_token(secret, claims))
    await playback.admit(stranger)
    with refused("bad_token"):
        playback.confirming(stranger)()


async def test_opens_are_counted_and_written_now_and_then(world: World) -> None:
    viewer, share = linked(world)
    _, quiet = linked(world)
    async with playing(world) as playback:
        await playback.admit(viewer)
        for _ in range(3):
            playback.note_open(viewer)
        playback.note_open(world.viewer())
        assert opens(world, share) == 0
    assert (opens(world, share), opens(world, quiet)) == (3, 0), "written when it stops"


# --- what is known of links, by itself ----------------------------------------------------------------------------


class Rows:
    """A catalog of links that can be away."""

    def __init__(self) -> None:
        self.away = False
        self.asked: list[list[int]] = []
        self.counted: list[dict[int, int]] = []

    def shares_by_number(self, numbers: Any) -> list[ShareRow]:
        self.asked.append(list(numbers))
        if self.away:
            raise CatalogUnavailable("away")
        return [ShareRow(number, 1, 1, 0, 9, 0, 9000, 1, 0) for number in numbers]

    def count_opens(self, opens: Any, *, now_ms: int) -> None:
        if self.away:
            raise CatalogUnavailable("away")
        self.counted.append(dict(opens))


class Time:
    def __init__(self) -> None:
        self.ns = 10**12


def of(number: int) -> ShareClaims:
    return ShareClaims(1, 1, 9, 0, number, 0, 9)


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def links(world: World, rows: Rows, time: Time) -> SharesInUse:
    return SharesInUse(rows, world.clock, wait_s=1, boottime_ns=lambda: time.ns)


async def test_what_was_heard_long_ago_is_not_believed(links: SharesInUse, rows: Rows, time: Time) -> None:
    assert links.is_live(of(1)) is None
    await links.learn(of(1))
    time.ns += STALE_NS
    assert links.is_live(of(1)) is True
    time.ns += 1
    assert links.is_live(of(1)) is None
    rows.away = True
    with pytest.raises(CatalogUnavailable):
        await links.learn(of(1))
    assert links.is_live(of(1)) is None


async def test_links_remembered_are_bounded(
    links: SharesInUse, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_module, "MAX_IN_USE", 3)
    for number in (1, 2, 3):
        await links.learn(of(number))
    assert links.is_live(of(1)), "used again"
    await links.learn(of(4))
    assert [links.is_live(of(number)) for number in (1, 2, 3, 4)] == [True, None, True, True]
    for number in range(9):
        links.note_open(number)
    await links.flush()
    assert [len(opens) for opens in rows.counted] == [3]
    assert MAX_IN_USE > 3


async def test_links_in_use_are_asked_about_together_and_others_no_more(
    links: SharesInUse, rows: Rows, time: Time, mock_clock: trio.testing.MockClock
) -> None:
    async def pass_s(seconds: float, asked: int) -> None:
        mock_clock.jump(seconds)
        while len(rows.asked) < asked:  # the thread comes back when it does
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(links.run)
        for number in (1, 2):
            await links.learn(of(number))
        await trio.testing.wait_all_tasks_blocked()
        time.ns += IN_USE_NS
        await pass_s(REFRESH_S, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert links.is_live(of(2)) is True, "it was asked about again"
        time.ns += 1
        await pass_s(REFRESH_S, 4)
        assert [sorted(numbers) for numbers in rows.asked] == [[1], [2], [1, 2], [2]], "nobody used the other"
        nursery.cancel_scope.cancel()


async def test_opens_that_were_not_written_are_written_later(links: SharesInUse, rows: Rows) -> None:
    links.note_open(1)
    rows.away = True
    await links.flush()
    links.note_open(1)
    links.note_open(2)
    rows.away = False
    await links.flush()
    await links.flush()
    assert rows.counted == [{1: 2, 2: 1}]
