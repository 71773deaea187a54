"""Erasures that can be proved: records, clearing, restored key stores, and the attack (invariants 9 and 10)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from retention.destruction import replay_destructions
from retention.proof import Proof, Prover
from storage.days import MS_PER_DAY
from storage.errors import CallerError, KeyDestroyed
from storage.keys import KeyId, KeyStore
from storage.rows.devices import ErasureRecord
from tests.retention.world import LEASE_MS, NOON, TODAY, World, fast_folder, monthly

WINDOW_MS = 7 * MS_PER_DAY
LATE = TODAY + 201


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


def record(world: World, device: int) -> ErasureRecord:
    return world.catalog.erasures(device=device)[-1]


def prove(world: World, device: int, *backups: Path) -> Proof:
    with ExitStack() as stack:
        others = [stack.enter_context(KeyStore.open(folder)) for folder in backups]
        prover = Prover(world.catalog, world.store, world.vault, others)
        return prover.prove(device, record(world, device).epoch)


def erased(world: World) -> tuple[int, int]:
    """A device whose keys were destroyed, and its neighbour in the same segments."""
    gone, stays = world.add(), world.add()
    for n in range(3):
        world.keep([(d, NOON + n * 2000) for d in (gone, stays)], expires_on=LATE + 30 * (n % 2))
    world.keep([(gone, NOON + 9000)], expires_on=LATE)
    world.terminate(gone, erase=True)
    world.sweep().run()
    return gone, stays


class TestRecords:
    def test_step_by_step(self, world: World) -> None:
        gone, _ = erased(world)
        found = record(world, gone)
        assert (found.why, found.who, found.epoch, found.state) == ("terminated", "operator", 1, "unindexed")
        assert (found.keys_destroyed, found.unindexed_chunks) == (2, 4)
        assert found.marked_ms == found.keys_destroyed_ms == found.unindexed_ms == world.clock.ms
        assert found.cleared_ms is None
        assert world.catalog.erasure_counts() == {"marked": 0, "keys destroyed": 0, "unindexed": 1}

    def test_a_lapse_is_the_sweeps(self, world: World) -> None:
        lapsed = world.add(monthly(TODAY - 100, TODAY - 10))
        world.sweep().run()
        assert (record(world, lapsed).why, record(world, lapsed).who) == ("lapsed", "sweep")

    def test_nothing_that_a_person_wrote_is_in_it(self, world: World) -> None:
        device = world.add()

        def change(what: str) -> None:
            world.entitlements.change(
                device, lambda f: replace(f, erase_epoch=1, erase_reason="terminated"), what=what
            )

        with pytest.raises(CallerError, match="a code"):
            change("terminated: Mrs Miller, 5 Long Lane")
        change("owner: terminated")
        assert (record(world, device).why, record(world, device).who) == ("terminated", "owner")

    def test_cleared_only_past_the_window(self, world: World) -> None:
        """Invariant 10: keys, caches and backups are all past, to the millisecond."""
        gone, _ = erased(world)
        start = world.clock.ms
        world.clock.ms = start + WINDOW_MS - 1
        assert world.sweep(clear_after_ms=WINDOW_MS).run().cleared_erasures == 0
        world.clock.ms += 1
        assert world.sweep(clear_after_ms=WINDOW_MS).run().cleared_erasures == 1
        assert record(world, gone).cleared_ms == world.clock.ms
        assert world.sweep(clear_after_ms=WINDOW_MS).run().cleared_erasures == 0

    def test_never_before_the_keys_are_gone(self, world: World) -> None:
        device = world.add()
        world.terminate(device, erase=True)
        fence = world.catalog.acquire_lease("sweep", holder="x", ttl_ms=LEASE_MS, now_ms=world.clock.ms)
        assert fence is not None
        late = world.clock.ms + 100 * WINDOW_MS
        assert world.catalog.clear_erasures(destroyed_before_ms=late, fence=fence, now_ms=late) == 0
        world.catalog.note_keys_destroyed({device: (1, 0)}, fence=fence, now_ms=world.clock.ms)
        assert world.catalog.clear_erasures(destroyed_before_ms=late, fence=fence, now_ms=late) == 0
        assert record(world, device).state == "keys destroyed"

    def test_the_first_word_about_keys_counts(self, world: World) -> None:
        gone, _ = erased(world)
        first = record(world, gone)
        world.clock.ms += 1000
        world.sweep().run()
        assert record(world, gone) == first

    def test_a_renewal_and_a_second_erasure_have_records_of_their_own(self, world: World) -> None:
        device = world.add(monthly(TODAY - 100, TODAY - 10))
        world.sweep().run()
        world.renew(device, monthly(TODAY, TODAY))
        world.keep([(device, NOON)], expires_on=LATE)
        world.clock.ms += 10 * MS_PER_DAY
        world.sweep().run()
        first, second = world.catalog.erasures(device=device)
        assert (first.epoch, first.keys_destroyed) == (1, 0)
        assert (second.epoch, second.keys_destroyed, second.unindexed_chunks) == (2, 1, 1)


class TestProof:
    def test_it_holds_and_neighbours_decrypt(self, world: World) -> None:
        """Invariant 10: what the catalog has forgotten still lies in the objects, and nothing opens it."""
        gone, _ = erased(world)
        proof = prove(world, gone)
        assert proof.holds
        assert (proof.segments, proof.chunks, proof.neighbours) == (4, 4, 3)
        # Two data keys, and the keys of two accounts: those of kept clips are among these.
        assert (proof.own_keys, proof.keys) == (0, 4)
        assert proof.told().startswith("4 chunks in 4 objects against 4 keys of 1 key stores")

    def test_a_backup_that_still_holds_the_keys_is_found(self, world: World) -> None:
        gone, stays = world.add(), world.add()
        world.keep([(gone, NOON), (stays, NOON)], expires_on=LATE)
        backup = world.folder / "backup"
        world.vault.backup(backup)
        world.terminate(gone, erase=True)
        world.sweep().run()
        assert prove(world, gone).holds
        proof = prove(world, gone, backup)
        assert not proof.holds
        assert (proof.own_keys, len(proof.decrypted)) == (1, 1)
        assert f"device {gone} at {NOON}" in proof.decrypted[0]

    def test_a_rotation_does_not_save_an_old_backup_and_a_new_one_is_clean(self, world: World) -> None:
        gone, _ = erased(world)
        world.vault.rotate()
        world.vault.backup(world.folder / "backup")
        assert prove(world, gone, world.folder / "backup").holds

    def test_keys_that_are_still_there(self, world: World) -> None:
        device = world.add()
        world.keep([(device, NOON)], expires_on=LATE)
        world.terminate(device, erase=True)
        proof = prove(world, device)
        assert not proof.holds
        assert len(proof.decrypted) == proof.own_keys == 1

    def test_a_neighbour_that_is_lost_is_told(self, world: World) -> None:
        gone, stays = world.add(), world.add()
        key = world.keep([(gone, NOON), (stays, NOON)], expires_on=LATE)
        world.terminate(gone, erase=True)
        world.sweep().run()
        body = bytearray(world.memory.objects[key])
        [row] = [k for k in world.kept if k.device == stays]
        body[bytes(body).index(row.stored)] ^= 1
        world.memory.objects[key] = bytes(body)
        proof = prove(world, gone)
        assert not proof.holds
        assert [f"device {stays} at {NOON}" in line for line in proof.neighbours_lost] == [True]

    def test_a_neighbour_that_lost_its_key_is_told(self, world: World) -> None:
        """An erasure that took too much must not pass for one that holds."""
        gone, stays = world.add(), world.add()
        world.keep([(gone, NOON), (stays, NOON)], expires_on=LATE)
        world.terminate(gone, erase=True)
        world.sweep().run()
        world.vault.destroy_device(stays, below_epoch=1)
        assert len(prove(world, gone).neighbours_lost) == 1

    def test_neighbours_that_lapsed_are_not_asked(self, world: World) -> None:
        gone, also, stays = world.add(), world.add(), world.add()
        world.keep([(gone, NOON), (also, NOON), (stays, NOON)], expires_on=LATE)
        for device in (gone, also):
            world.terminate(device, erase=True)
        world.sweep().run()
        proof = prove(world, gone)
        assert proof.holds
        assert proof.neighbours == 1

    def test_an_object_that_cannot_be_read_proves_nothing(self, world: World) -> None:
        gone, stays = world.add(), world.add()
        key = world.keep([(gone, NOON), (stays, NOON)], expires_on=LATE)
        world.terminate(gone, erase=True)
        world.sweep().run()
        world.memory.objects[key] = world.memory.objects[key][:-1]
        proof = prove(world, gone)
        assert not proof.holds
        assert key in proof.unreadable[0]


class TestRestoredKeyStore:
    def restore(self, world: World, backup: Path) -> None:
        world.vault.close()
        shutil.rmtree(world.folder / "keys")
        shutil.copytree(backup, world.folder / "keys")
        world.vault = KeyStore.open(world.folder / "keys")

    @pytest.mark.parametrize("by_sweep", [False, True])
    def test_what_was_destroyed_since_is_destroyed_anew(self, world: World, by_sweep: bool) -> None:
        """Invariants 9 and 10: before anything is served or made, and the erasure waits once more."""
        gone, stays = world.add(), world.add()
        world.keep([(gone, NOON), (stays, NOON)], expires_on=LATE)
        backup = world.folder / "backup"
        world.vault.backup(backup)
        world.terminate(gone, erase=True)
        world.sweep().run()
        world.clock.ms += WINDOW_MS
        world.sweep(clear_after_ms=WINDOW_MS).run()
        assert record(world, gone).state == "cleared"

        self.restore(world, backup)
        assert not prove(world, gone).holds
        if by_sweep:
            assert world.sweep(clear_after_ms=WINDOW_MS).run().destroyed_keys == 1
        else:
            assert replay_destructions(world.catalog, world.vault, now_ms=world.clock.ms) == 1
        assert prove(world, gone).holds
        assert record(world, gone).state == "unindexed"
        assert record(world, gone).keys_destroyed_ms == world.clock.ms
        with pytest.raises(KeyDestroyed):
            world.vault.ensure([KeyId(gone, 0, 202601)])
        assert world.serves(stays, NOON) == [True]
        assert replay_destructions(world.catalog, world.vault, now_ms=world.clock.ms) == 0

    def test_a_backup_within_the_window_changes_no_record(self, world: World) -> None:
        gone, _ = erased(world)
        before = record(world, gone)
        world.vault.backup(world.folder / "backup")
        self.restore(world, world.folder / "backup")
        world.clock.ms += 5
        assert replay_destructions(world.catalog, world.vault, now_ms=world.clock.ms) == 0
        assert record(world, gone) == before

    def test_a_device_that_records_again_keeps_its_new_keys(self, world: World) -> None:
        device = world.add(monthly(TODAY - 100, TODAY - 10))
        world.keep([(device, NOON)], expires_on=LATE)
        backup = world.folder / "backup"
        world.vault.backup(backup)
        world.sweep().run()
        self.restore(world, backup)
        world.renew(device, monthly(TODAY))
        world.keep([(device, NOON + 2000)], expires_on=LATE)
        assert replay_destructions(world.catalog, world.vault, now_ms=world.clock.ms) == 1
        assert world.serves(device, NOON, NOON + 2000) == [False, True]
