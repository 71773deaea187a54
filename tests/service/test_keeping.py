"""Kept clips: copied in steps that survive a kill, kept beyond expiry, and gone with all that ends recordings."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from retention.account_keys import destroy_again, destroy_ended, destroy_unused, wrong_account_keys
from retention.destruction import note_destroyed
from retention.proof import Prover
from service import keeping
from service.keeping import CLAIM_MS, Keeping
from storage.days import MS_PER_DAY
from storage.errors import CorruptError, StoreUnavailable
from storage.faults import Fault, FaultKind, no_faults
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.rows.clips import KEPT_DAY, ClipRow, ClipState, clip_of_key
from storage.rows.recordings import MAX_CAPTURE_MS, ChunkRow
from storage.segment import TAG_BYTES, decrypt_chunk
from tests.retention.world import (
    DELAY_MS,
    GRACE_DAYS,
    NOON,
    TODAY,
    TTL_MS,
    WEEK,
    World,
    content,
    fast_folder,
    monthly,
)

STEP_MS = 2000
TIMES = [NOON - 3_600_000 + n * STEP_MS for n in range(6)]


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


def begun(world: World, device: int, from_ms: int = TIMES[0], to_ms: int = TIMES[-1] + 1) -> ClipRow:
    """A clip that was asked for, as the desk does."""
    rows = world.catalog.chunks(device, from_ms, to_ms, limit=1000)
    key_id = os.urandom(16)
    world.vault.make_account_keys([key_id], now_ms=world.clock.ms)
    row = ClipRow(
        *(0, OPERATOR_ACCOUNT, device, world.catalog.device(device).erase_epoch, rows[0].capture_ms),
        *(from_ms, to_ms, "the cat", world.clock.ms, ClipState.COPYING),
        *(len(rows), sum(row.length for row in rows), rows[0].capture_ms),
    )
    return world.catalog.transact(lambda books: books.add_clip(row, key_id), now_ms=world.clock.ms)


def keeper(world: World) -> Keeping:
    return Keeping(world.catalog, world.store, world.vault, world.clock)


def clips_of(world: World, device: int) -> list[ClipRow]:
    with world.catalog.books() as books:
        return books.clips_of(device)


def rows_of(world: World, clip: ClipRow) -> list[ChunkRow]:
    return world.catalog.clip_chunks(clip.device, clip.clip_id, 0, MAX_CAPTURE_MS, limit=1000)


def decrypted(world: World, clip: ClipRow) -> dict[int, bytes]:
    """What a reader gets, from the store and the vault."""
    id_ = world.catalog.clip_key(clip.clip_id)
    assert id_ is not None
    key = AESGCM(world.vault.account_keys([id_])[id_])
    found = {}
    for row in rows_of(world, clip):
        stored = world.store.inner.get_range(row.segment_key, row.offset, row.length + TAG_BYTES)
        found[row.capture_ms] = decrypt_chunk(
            key, row.nonce, stored, device=row.device, capture_ms=row.capture_ms
        )
    return found


def kept(world: World, *times: int, device: int) -> dict[int, bytes]:
    return {time: content(device, time) for time in times}


def recorded(world: World) -> int:
    device = world.add()
    for time in TIMES:
        world.keep([(device, time)])
    return device


def decrypting_keys(world: World, device: int) -> int:
    """How many chunks of the device's, in objects that are there, any key that is left decrypts."""
    keys = [key for _, key in world.vault.every_key()] + [key for _, key in world.vault.every_account_key()]
    known: set[str] = set()
    world.kept.clear()
    world.copy_objects(known)
    found = 0
    for chunk in world.kept:
        if chunk.device != device:
            continue
        for key in keys:
            try:
                decrypt_chunk(
                    AESGCM(key), chunk.nonce, chunk.stored, device=chunk.device, capture_ms=chunk.capture_ms
                )
            except CorruptError:
                continue
            found += 1
    return found


def test_a_clip_outlives_its_recordings(world: World) -> None:
    device = recorded(world)
    clip = begun(world, device)
    assert keeper(world).run() == {"clip_objects": 1}
    assert keeper(world).run() == {}
    [ready] = clips_of(world, device)
    assert (ready.state, ready.chunks, ready.bytes, ready.name) == (ClipState.READY, 6, clip.bytes, "the cat")
    assert {row.expires_on for row in rows_of(world, ready)} == {KEPT_DAY}
    world.clock.ms += (WEEK + 40) * MS_PER_DAY
    report = world.sweep().run()
    assert report.destroyed_keys > 0, "the keys of its month are gone"
    world.clock.ms += DELAY_MS
    world.sweep().run()
    assert world.catalog.chunks(device, 0, MAX_CAPTURE_MS, limit=9) == []
    assert decrypted(world, ready) == kept(world, *TIMES, device=device)
    assert [clip_of_key(key) for key in world.objects()] == [ready.clip_id]
    world.sound()
    assert list(wrong_account_keys(world.catalog, world.vault)) == []


def test_what_no_plan_has_no_rule_of_the_store_expires() -> None:
    from storage.lifecycle import wanted_rules

    rules = [
        rule for rule in wanted_rules("", range(1, 256), slack_days=3) if "Days" in rule.get("Expiration", {})
    ]
    assert not any("v1/0/9999-01-01/clip-1/x".startswith(rule["Filter"]["Prefix"]) for rule in rules)


def test_after_a_lapse_and_its_grace_nothing_decrypts(world: World) -> None:
    device = world.add(monthly(TODAY - 100, TODAY + 1))
    other = recorded(world)
    for time in TIMES:
        world.keep([(device, time)])
    mine, theirs = begun(world, device), begun(world, other)
    while keeper(world).run():
        pass
    world.clock.ms += (1 + GRACE_DAYS) * MS_PER_DAY
    world.sweep().run()
    assert clips_of(world, device), "within the grace a renewal brings it back"
    assert decrypting_keys(world, device) == 12
    world.clock.ms += MS_PER_DAY
    world.sweep().run()
    assert clips_of(world, device) == []
    assert decrypting_keys(world, device) == 0
    assert world.catalog.clip_key(mine.clip_id) is None
    world.clock.ms += DELAY_MS
    world.sweep().run()
    assert clip_of_key(min(world.objects())) != mine.clip_id
    assert {clip_of_key(key) for key in world.objects()} == {None, theirs.clip_id}
    assert decrypted(world, theirs) == kept(world, *TIMES, device=other)
    world.sound()


def test_an_erasure_of_a_clip_can_be_proved(world: World) -> None:
    """Its objects are there still; and a key of it that a fault left in the vault would be found."""
    device = recorded(world)
    clip = begun(world, device)
    keeper(world).run()
    id_ = world.catalog.clip_key(clip.clip_id)
    assert id_ is not None
    key = world.vault.account_keys([id_])
    facts = world.terminate(device, erase=True)
    assert clips_of(world, device) == [], "with the epoch, in one transaction"
    world.vault.destroy_device(device, below_epoch=facts.erase_epoch)
    note_destroyed(world.catalog, world.vault, [facts], fence=None, now_ms=world.clock.ms)
    prover = Prover(world.catalog, world.store, world.vault)
    proof = prover.prove(device, facts.erase_epoch)
    assert (proof.holds, proof.chunks, proof.decrypted) == (True, 12, [])
    world.vault.keep_account_keys(key, now_ms=world.clock.ms)  # as a vault has it that was restored
    proof = prover.prove(device, facts.erase_epoch)
    assert (proof.holds, len(proof.decrypted)) == (False, 1)
    destroy_again(world.catalog, world.vault)
    assert prover.prove(device, facts.erase_epoch).holds, "the catalog's word is repeated"


@pytest.mark.parametrize("keep_clips", [False, True])
@pytest.mark.parametrize("copied", [False, True])
def test_a_deleted_range_takes_clips_along_unless_told_otherwise(
    world: World, keep_clips: bool, copied: bool
) -> None:
    device = recorded(world)
    clip, apart = begun(world, device), begun(world, device, TIMES[4], TIMES[4] + 1)
    if copied:
        while keeper(world).run():
            pass
    now_ms = world.clock.ms
    world.catalog.delete_range(
        device,
        TIMES[1],
        TIMES[3],
        reason="",
        who="owner",
        now_ms=now_ms,
        delete_after_ms=now_ms,
        keep_clips=keep_clips,
    )
    assert destroy_ended(world.catalog, world.vault) == (0 if keep_clips else 1)
    while keeper(world).run():
        pass
    there = clips_of(world, device)
    assert [row.clip_id for row in there] == ([clip.clip_id] if keep_clips else []) + [apart.clip_id]
    if keep_clips:
        left = TIMES if copied else [TIMES[0], *TIMES[3:]]
        assert decrypted(world, there[0]) == kept(world, *left, device=device), (
            "what is deleted is not copied"
        )
        assert there[0].chunks == len(left)
    else:
        assert rows_of(world, clip) == []
    assert decrypted(world, apart) == kept(world, TIMES[4], device=device)
    world.clock.ms += DELAY_MS
    world.sweep().run()
    kept_objects = {clip_of_key(key) for key in world.objects()} - {None}
    assert kept_objects == {row.clip_id for row in there}
    world.sound()


class Killed(BaseException):
    """SIGKILL, as far as this process can tell."""


@pytest.mark.parametrize("step", range(40))
def test_a_kill_at_any_call_leaves_a_clip_that_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before each call to catalog, store and vault of a copy in three objects, in turn."""
    monkeypatch.setattr(keeping, "TARGET_BYTES", 2 * len(content(1, 0)))
    device = recorded(world)
    clip = begun(world, device)
    calls = 0

    class Dying:
        def __init__(self, inner: object) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            found = getattr(self._inner, name)
            if not callable(found):
                return found

            def call(*args: object, **more: object) -> object:
                nonlocal calls
                calls += 1
                if calls > step:
                    raise Killed
                return found(*args, **more)

            return call

    catalog, store, vault = Dying(world.catalog), Dying(world.store), Dying(world.vault)
    try:
        Keeping(catalog, store, vault, world.clock).run()  # type: ignore[arg-type]
        died = False
    except Killed:
        died = True
    seen = decrypted(world, clip)
    assert seen.items() <= kept(world, *TIMES, device=device).items(), "what is served is whole"
    world.sound()
    assert len(seen) % 2 == 0
    if died:
        world.clock.ms += CLAIM_MS
        while keeper(world).run():
            pass
    assert decrypted(world, clip) == kept(world, *TIMES, device=device)
    world.clock.ms += TTL_MS + 1
    world.sweep().run()
    world.clock.ms += TTL_MS + DELAY_MS
    world.sweep().run()
    assert len([key for key in world.objects() if clip_of_key(key)]) == 3, (
        "nothing is left of what was not committed"
    )
    world.sound()
    assert calls <= step or died


def test_the_kills_reach_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps above are more than there are calls."""
    monkeypatch.setattr(keeping, "TARGET_BYTES", 2 * len(content(1, 0)))
    device = recorded(world)
    begun(world, device)
    assert keeper(world).run() == {"clip_objects": 3}


@pytest.mark.parametrize("kind", [FaultKind.BEFORE, FaultKind.AFTER])
def test_a_store_that_is_away_loses_nothing(world: World, kind: FaultKind) -> None:
    device = recorded(world)
    clip = begun(world, device)
    world.store.plan = lambda op, key, nth: Fault(kind) if op == "put" else None
    with pytest.raises(StoreUnavailable):
        keeper(world).run()
    assert keeper(world).run() == {}, "the claim holds"
    world.store.plan = no_faults
    world.clock.ms += CLAIM_MS
    assert keeper(world).run() == {"clip_objects": 1}
    assert decrypted(world, clip) == kept(world, *TIMES, device=device)
    world.clock.ms += TTL_MS + 1
    world.sweep().run()
    assert len([key for key in world.objects() if clip_of_key(key)]) == 1
    world.sound()


def test_one_chunk_that_is_damaged_is_left_out(world: World) -> None:
    device = recorded(world)
    bad = world.catalog.chunk(device, TIMES[2])
    assert bad is not None
    world.memory.delete_many([bad.segment_key])
    clip = begun(world, device)
    keeper(world).run()
    assert list(decrypted(world, clip)) == [time for time in TIMES if time != TIMES[2]]


def test_chunks_that_expire_while_it_is_copied_are_left_out(world: World) -> None:
    device = recorded(world)
    late = TIMES[0] + 1
    world.keep([(device, late)], expires_on=TODAY + 60)
    begun(world, device)
    world.clock.ms += (WEEK + 2) * MS_PER_DAY
    keeper(world).run()
    [clip] = clips_of(world, device)
    assert decrypted(world, clip) == kept(world, late, device=device)
    assert (clip.state, clip.chunks) == (ClipState.READY, 1)


def test_no_more_is_kept_than_was_reserved(world: World) -> None:
    """Whatever comes into the range while it is copied."""
    device = recorded(world)
    clip = begun(world, device)
    for time in TIMES[:5]:
        world.keep([(device, time + 1)])
    keeper(world).run()
    [ready] = clips_of(world, device)
    assert (ready.chunks, ready.bytes) == (6, clip.bytes)


def test_two_hosts_copy_a_clip_once(world: World) -> None:
    device = recorded(world)
    clip = begun(world, device)
    first = world.catalog.claim_clip(now_ms=world.clock.ms, until_ms=world.clock.ms + CLAIM_MS)
    assert first is not None
    world.clock.ms += CLAIM_MS  # the first one hangs
    assert keeper(world).run() == {"clip_objects": 1}
    one = keeper(world)
    assert one.take(first, one.next_step(first)) is None, "and comes too late"
    assert decrypted(world, clip) == kept(world, *TIMES, device=device)
    world.clock.ms += TTL_MS + 1
    world.sweep().run()
    world.clock.ms += TTL_MS + DELAY_MS
    world.sweep().run()
    assert len([key for key in world.objects() if clip_of_key(key)]) == 1
    world.sound()


def test_a_key_of_a_clip_that_was_never_made_is_destroyed(world: World) -> None:
    key_id = os.urandom(16)
    world.vault.make_account_keys([key_id], now_ms=world.clock.ms)
    device = recorded(world)
    clip = begun(world, device)
    later = world.clock.ms + 8 * MS_PER_DAY
    assert destroy_unused(world.catalog, world.vault, now_ms=later) == 1
    assert world.vault.account_keys([key_id]) == {}
    id_ = world.catalog.clip_key(clip.clip_id)
    assert id_ is not None
    assert len(world.vault.account_keys([id_])) == 1, "and that of one that is there is not"


def test_dropped(world: World) -> None:
    device = recorded(world)
    clip = begun(world, device)
    keeper(world).run()
    for there in (True, False):
        assert there == world.catalog.transact(
            lambda books: books.drop_clip(device, clip.clip_id, now_ms=world.clock.ms), now_ms=world.clock.ms
        )
    assert destroy_ended(world.catalog, world.vault) == 1
    assert (rows_of(world, clip), world.catalog.clip_key(clip.clip_id)) == ([], None)
    world.sweep().run()
    assert {clip_of_key(key) for key in world.objects()} == {None}
    world.sound()


def test_numbers_in_keys() -> None:
    assert clip_of_key("v1/0/9999-01-01/clip-12/abc") == 12
    for key in (
        "v1/31/2025-06-15/w0/abc",
        "v1/0/9999-01-01/clip-/abc",
        "v1/0/9999-01-01/clip-x/abc",
        "clip-1",
    ):
        assert clip_of_key(key) is None
