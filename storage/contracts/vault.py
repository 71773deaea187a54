"""What every vault must do, whatever it keeps its keys in: see `storage.vault.Vault`."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from storage._key_files import MASTER_MAGIC, read_key_file, write_key_file
from storage.errors import CallerError, ClipkeepError, CorruptError, KeyDestroyed, NotFound
from storage.vault import ACCOUNT_KEY_ID_BYTES, MAX_IDS_PER_CALL, AccountKeyFacts, KeyCount, KeyId, Vault

A, B = KeyId(1, 0, 202601), KeyId(1, 0, 202602)
C, D = KeyId(2, 0, 202601), KeyId(3, 7, 202602)
NOW = 1_790_000_000_000

Opener = Callable[..., Vault]
"""Opens the vault once more."""


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(ClipkeepError) as caught:
        call()
    return caught.value.code


def fresh_ids(count: int) -> list[bytes]:
    return sorted(secrets.token_bytes(ACCOUNT_KEY_ID_BYTES) for _ in range(count))


class VaultContract:
    @pytest.fixture
    def opener(self) -> Opener:
        """Of a new, empty vault."""
        raise NotImplementedError

    @pytest.fixture
    def master_key(self) -> Path:
        """The file of wrapping keys that `opener` uses."""
        raise NotImplementedError

    @pytest.fixture
    def vault(self, opener: Opener) -> Iterator[Vault]:
        with opener() as vault:
            yield vault

    # --- making and reading ---------------------------------------------------------------------------------------

    def test_a_key_is_made_once(self, vault: Vault) -> None:
        first = vault.ensure([A, B, A])
        assert set(first) == {A, B}
        assert {len(key) for key in first.values()} == {32}
        assert first[A] != first[B]
        assert vault.ensure([A, B, C]) | first == vault.ensure([C, B, A])
        assert vault.count() == 3

    def test_get_makes_nothing(self, vault: Vault) -> None:
        made = vault.ensure([A])
        assert vault.get([A, B]) == made
        assert vault.get([]) == {}
        assert vault.ensure([]) == {}
        assert vault.count() == 1

    def test_each_id_has_its_outcome(self, vault: Vault) -> None:
        """For a reader a key that was never made, or is gone, is gone."""
        made = vault.ensure([A, C])
        vault.destroy_device(1, below_epoch=1)
        outcomes = vault.ensure_each([A, B, C, D])
        assert isinstance(outcomes[A], KeyDestroyed)
        assert isinstance(outcomes[B], KeyDestroyed)
        assert outcomes[C] == made[C]
        assert isinstance(outcomes[D], bytes)
        never = KeyId(77, 0, 202601)
        outcomes = vault.get_each([A, C, never])
        assert isinstance(outcomes[A], KeyDestroyed)
        assert isinstance(outcomes[never], KeyDestroyed)
        assert outcomes[C] == made[C]

    def test_keys_and_token_secret_survive_reopening(self, opener: Opener, vault: Vault) -> None:
        made = vault.ensure([A, D])
        with opener() as again:
            assert again.get([A, D]) == made
            assert again.token_secret == vault.token_secret
            assert len(again.token_secret) == 32

    def test_keys_of_an_earlier_month_are_kept_as_keys_of_the_first(
        self, opener: Opener, vault: Vault
    ) -> None:
        vault.destroy_months(202601)
        with opener() as moved:
            moved.keep_from(202602)
            made = moved.ensure([A, B, C])
            assert made[A] == made[B], "both are of device 1, epoch 0, month 202602"
            assert moved.get([A]) == {A: made[B]}
        assert vault.get([B, C._replace(month=202602)]) == {B: made[B], C._replace(month=202602): made[C]}
        with pytest.raises(KeyDestroyed):
            vault.ensure([A])

    @pytest.mark.parametrize(
        "bad",
        [
            (-1, 0, 202601),
            (2**32, 0, 202601),
            (1, 2**32, 202601),
            (1, -1, 202601),
            (1, 0, 202600),
            (1, 0, 202613),
        ],
    )
    def test_ids_out_of_range(self, vault: Vault, bad: tuple[int, int, int]) -> None:
        for call in (vault.ensure, vault.get, vault.get_each):
            assert code_of(lambda call=call: call([KeyId(*bad)])) == "bad_key_id"
        assert vault.count() == 0

    def test_the_ends_of_the_ranges(self, vault: Vault) -> None:
        ends = [KeyId(0, 0, 197001), KeyId(2**32 - 1, 2**32 - 1, 999912)]
        assert vault.ensure(ends) == vault.get(ends)
        assert vault.destroy_devices({2**32 - 1: 2**32 - 1}) == 0

    def test_a_call_is_bounded(self, vault: Vault) -> None:
        many = [KeyId(n, 0, 202601) for n in range(MAX_IDS_PER_CALL + 1)]
        assert code_of(lambda: vault.ensure(many)) == "too_many_ids"
        assert code_of(lambda: vault.destroy_devices({n: 1 for n, _, _ in many})) == "too_many_ids"
        assert code_of(lambda: vault.behind({n: 1 for n, _, _ in many})) == "too_many_ids"
        assert code_of(lambda: vault.count_of(n for n, _, _ in many)) == "too_many_ids"
        assert code_of(lambda: vault.account_keys([bytes(16)] * len(many))) == "too_many_ids"

    def test_a_call_as_large_as_it_may_be(self, vault: Vault) -> None:
        many = [KeyId(n, 0, 202601 + n % 3) for n in range(MAX_IDS_PER_CALL)]
        made = vault.ensure(many)
        assert len(set(made.values())) == MAX_IDS_PER_CALL
        assert vault.get(many) == made
        assert vault.destroy_devices(dict.fromkeys(range(MAX_IDS_PER_CALL), 1)) == MAX_IDS_PER_CALL
        assert vault.count() == 0

    def test_closed(self, vault: Vault) -> None:
        vault.close()
        vault.close()
        for call in (
            lambda: vault.get([A]),
            lambda: vault.ensure([A]),
            lambda: vault.destroy_device(1, below_epoch=1),
            lambda: vault.account_keys([bytes(16)]),
            vault.inventory,
        ):
            assert code_of(call) == "key_store_closed"

    def test_threads_agree(self, opener: Opener) -> None:
        """On connections of their own, in months that nobody has made yet."""
        ids = [KeyId(n, 0, 202601 + n % 5) for n in range(50)]
        found: list[dict[KeyId, bytes]] = []

        def ensure() -> None:
            with opener() as mine:
                found.append(mine.ensure(ids))

        threads = [threading.Thread(target=ensure) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 6
        assert all(keys == found[0] for keys in found)

    # --- destruction ----------------------------------------------------------------------------------------------

    def test_a_device_is_gone_and_its_neighbours_are_not(self, vault: Vault) -> None:
        """Invariant 10."""
        made = vault.ensure([A, B, C])
        assert vault.destroy_device(1, below_epoch=1) == 2
        assert vault.get([A, B, C]) == {C: made[C]}
        assert vault.count() == 1
        assert vault.destroy_device(1, below_epoch=1) == 0

    def test_nothing_is_resurrected(self, opener: Opener, vault: Vault) -> None:
        """Invariant 9: an upload that lost the race against an erasure gets no key, also after a restart."""
        vault.ensure([A, C])
        vault.destroy_device(1, below_epoch=2)
        vault.destroy_device(1, below_epoch=1)  # a late, lower call takes nothing back
        for gone in (A, A._replace(epoch=1), B):
            with pytest.raises(KeyDestroyed):
                vault.ensure([D, gone])
        assert vault.get([D]) == {}, "ensure is all or nothing"
        with opener() as again, pytest.raises(KeyDestroyed):
            again.ensure([A])

    def test_a_renewal_starts_with_new_keys(self, vault: Vault) -> None:
        old = vault.ensure([A])[A]
        vault.destroy_device(1, below_epoch=1)
        renewed = A._replace(epoch=1)
        new = vault.ensure([renewed])[renewed]
        assert new != old
        assert vault.destroy_device(1, below_epoch=1) == 0
        assert vault.get([renewed]) == {renewed: new}

    def test_months(self, vault: Vault) -> None:
        made = vault.ensure([A, B, C, D])
        assert vault.last_month_destroyed() == 0
        vault.require_usable()
        assert vault.destroy_months(202601) == 2
        assert vault.last_month_destroyed() == 202601
        assert vault.get([A, B, C, D]) == {B: made[B], D: made[D]}
        with pytest.raises(KeyDestroyed):
            vault.ensure([A])
        with pytest.raises(KeyDestroyed):
            vault.ensure([KeyId(9, 9, 202512)])
        assert vault.destroy_months(202601) == 0
        assert vault.destroy_months(202511) == 0
        assert vault.last_month_destroyed() == 202601
        assert vault.destroy_months(202612) == 2
        assert vault.count() == 0

    def test_keys_of_erased_devices_are_not_counted_again_with_their_month(self, vault: Vault) -> None:
        vault.ensure(KeyId(n, 0, 202601) for n in range(50))
        vault.destroy_devices({3: 1, 49: 1})
        assert vault.destroy_months(202601) == 48

    def test_many_devices_at_once(self, vault: Vault) -> None:
        made = vault.ensure([A, B, C, D])
        assert vault.destroy_devices({}) == 0
        assert vault.destroy_devices({1: 1, 2: 1, 3: 5}) == 3
        assert vault.get([A, B, C, D]) == {D: made[D]}

    def test_destruction_against_those_who_make_keys(self, opener: Opener, vault: Vault) -> None:
        """Invariant 9: once destroy has returned, nobody gets a key of that epoch, and none is in the vault."""
        under_way, destroyed, faults = threading.Barrier(4), threading.Event(), []

        def make(number: int) -> None:
            with opener() as mine:
                under_way.wait()
                for n in count():
                    is_over = destroyed.is_set()
                    try:
                        mine.ensure([KeyId(1, 0, 202601 + n % 12), KeyId(100 + number, n, 202601)])
                    except KeyDestroyed:
                        return
                    if is_over:
                        faults.append(f"made key {n} of the epoch that was destroyed")
                        return

        threads = [threading.Thread(target=make, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        under_way.wait()
        try:
            vault.destroy_device(1, below_epoch=1)
        finally:
            destroyed.set()
        assert [key_id for key_id, _ in vault.every_key(device=1)] == []
        for thread in threads:
            thread.join()
        assert faults == []
        assert [key_id for key_id, _ in vault.every_key(device=1)] == []

    # --- reports --------------------------------------------------------------------------------------------------

    def test_counts(self, vault: Vault) -> None:
        vault.ensure([A, B, C, D, KeyId(1, 1, 202601)])
        vault.make_account_keys(fresh_ids(3), now_ms=NOW)
        vault.destroy_devices({1: 1})
        assert vault.count_of([1, 2, 3, 9]) == {
            1: KeyCount(1, 2),
            2: KeyCount(1, 0),
            3: KeyCount(1, 0),
            9: KeyCount(0, 0),
        }
        assert vault.count_of([1], below_epochs={1: 1}) == {1: KeyCount(0, 2)}
        assert vault.count_of([1], below_epochs={1: 2}) == {1: KeyCount(1, 0)}
        found = vault.inventory()
        assert found.months == {202601: KeyCount(2, 1), 202602: KeyCount(1, 1)}
        assert (found.month_floor, found.erased_devices, found.account_keys) == (0, 1, 3)
        [(number, wrapped)] = found.wrapping_keys.items()
        assert (number, wrapped) in ((found.current_wrapping_key, 6), (found.current_wrapping_key, 7))
        assert found.rotated_ms > 0
        assert vault.damage() == []

    def test_what_it_has_not_heard_of(self, vault: Vault) -> None:
        vault.destroy_devices({1: 2, 5: 1})
        assert vault.behind({1: 2, 5: 2, 6: 1}) == {5: 2, 6: 1}
        assert vault.behind({}) == {}

    def test_every_key(self, vault: Vault) -> None:
        made = vault.ensure(KeyId(n, n % 3, 202601 + n % 2) for n in range(2100))
        assert dict(vault.every_key()) == made
        of_one = {key_id: key for key_id, key in made.items() if key_id.device == 7}
        assert dict(vault.every_key(device=7)) == of_one
        vault.destroy_devices({7: 5})
        assert dict(vault.every_key(device=7)) == {}

    def test_what_is_there_can_be_relied_on(self, opener: Opener, vault: Vault, master_key: Path) -> None:
        vault.require_files()
        vault.rotate()
        vault.require_files()
        kept = master_key.read_bytes()
        master_key.unlink()
        with pytest.raises(CorruptError):
            vault.require_files()
        write_key_file(master_key, MASTER_MAGIC, [(1 << 62, bytes(32))])
        for call in (vault.require_files, opener):
            with pytest.raises(CorruptError, match="id"):
                call()
        master_key.write_bytes(kept)
        master_key.chmod(0o640)
        assert code_of(opener) == "key_store_permissions"
        master_key.chmod(0o600)
        vault.require_files()

    # --- account keys ---------------------------------------------------------------------------------------------

    def test_account_keys(self, opener: Opener, vault: Vault) -> None:
        ids = fresh_ids(5)
        assert vault.account_keys(ids) == {}
        assert vault.account_keys_made() == []
        made = vault.make_account_keys(ids[:3], now_ms=NOW)
        assert set(made) == set(ids[:3])
        assert {len(key) for key in made.values()} == {32}
        assert vault.make_account_keys(ids, now_ms=NOW + 5) | made == vault.account_keys(ids)
        assert vault.account_keys_made() == [AccountKeyFacts(id_, NOW) for id_ in ids[:3]] + [
            AccountKeyFacts(id_, NOW + 5) for id_ in ids[3:]
        ]
        assert vault.account_keys_made(after=ids[1], limit=2) == vault.account_keys_made()[2:4]
        with opener() as again:
            assert again.account_keys(ids[:3]) == made
        assert vault.destroy_account_keys([ids[0], ids[4]]) == 2
        assert vault.destroy_account_keys([ids[0]]) == 0
        assert vault.destroy_account_keys([]) == 0
        assert set(vault.account_keys(ids)) == set(ids[1:4])
        assert [facts.id for facts in vault.account_keys_made()] == ids[1:4]
        assert vault.make_account_keys([], now_ms=NOW) == {}

    def test_a_place_that_became_free_is_used_again(self, vault: Vault) -> None:
        """Who registers and fails, over and over, makes no table grow."""
        for _ in range(20):
            ids = fresh_ids(3)
            made = vault.make_account_keys(ids, now_ms=NOW)
            assert vault.account_keys(ids) == made
            assert vault.destroy_account_keys(ids) == 3
        assert vault.account_keys_made() == []
        assert vault.inventory().account_keys == 0

    def test_ids_of_another_length(self, vault: Vault) -> None:
        for bad in (b"", bytes(15), bytes(17)):
            assert code_of(lambda bad=bad: vault.make_account_keys([bad], now_ms=NOW)) == "bad_key_id"
            assert code_of(lambda bad=bad: vault.account_keys([bad])) == "bad_key_id"
            assert code_of(lambda bad=bad: vault.destroy_account_keys([bad])) == "bad_key_id"

    def test_two_who_make_the_same_agree(self, opener: Opener) -> None:
        ids, found = fresh_ids(30), []

        def make() -> None:
            with opener() as mine:
                found.append(mine.make_account_keys(ids, now_ms=NOW))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert all(keys == found[0] for keys in found)

    # --- rotation -------------------------------------------------------------------------------------------------

    def test_survivors_are_rewrapped_and_the_old_key_is_gone(
        self, opener: Opener, vault: Vault, master_key: Path
    ) -> None:
        """Invariant 10: no byte of the old wrapping key is left on the host, nor any row wrapped with it."""
        made, accounts = vault.ensure([A, B, C, D]), vault.make_account_keys(fresh_ids(3), now_ms=NOW)
        secret = vault.token_secret
        vault.destroy_device(3, below_epoch=8)
        [(old, old_secret)] = read_key_file(master_key, MASTER_MAGIC)
        told: list[tuple[str, int, int]] = []
        done = vault.rotate(lambda *progress: told.append(progress))
        del made[D]
        assert vault.get([A, B, C, D]) == made
        assert vault.account_keys(list(accounts)) == accounts
        assert (done.resumed, done.retired) == (False, (old,))
        assert done.rewrapped in (6, 7), "the token secret is a row of a database, and a file of a folder"
        assert [number for number, _ in read_key_file(master_key, MASTER_MAGIC)] == [done.wrapping_key_id]
        assert told[-1] == ("rewrap", done.rewrapped, done.rewrapped)
        assert not any(old_secret in path.read_bytes() for path in master_key.parent.glob("master*"))
        assert set(vault.inventory().wrapping_keys) == {done.wrapping_key_id}
        with opener() as again:
            assert again.token_secret == secret
            assert again.account_keys(list(accounts)) == accounts

    def test_nothing_destroyed_comes_back(self, vault: Vault) -> None:
        """Invariant 9."""
        vault.ensure([A, B, C, D])
        [account] = vault.make_account_keys(fresh_ids(1), now_ms=NOW)
        vault.destroy_account_keys([account])
        vault.destroy_device(1, below_epoch=1)
        vault.destroy_months(202601)
        vault.rotate()
        assert vault.account_keys([account]) == {}
        for gone in (A, KeyId(99, 0, 202601)):
            with pytest.raises(KeyDestroyed):
                vault.ensure([gone])

    def test_again_and_again(self, opener: Opener, vault: Vault) -> None:
        secret, made = vault.token_secret, vault.ensure([A, B, C, D])
        assert len({vault.rotate().wrapping_key_id for _ in range(10)}) == 10
        with opener() as again:
            assert again.get(made) == made
            assert again.token_secret == secret

    def test_a_running_service_goes_on(self, opener: Opener, vault: Vault) -> None:
        """Invariant 1: readers and writers on other connections see no fault through many rotations."""
        made = vault.ensure([A, B, C, D])
        accounts = vault.make_account_keys(fresh_ids(2), now_ms=NOW)
        faults: list[object] = []
        stop = threading.Event()

        def use(number: int) -> None:
            with opener() as mine:
                count = 0
                while not stop.is_set():
                    count += 1
                    fresh = KeyId(1000 + number, count, 202601)
                    outcomes = mine.ensure_each([*made, fresh])
                    faults.extend(o for o in outcomes.values() if not isinstance(o, bytes))
                    if {key_id: outcomes[key_id] for key_id in made} != made:
                        faults.append("another key")
                    if mine.account_keys(list(accounts)) != accounts:
                        faults.append("another account key")
                    with opener() as new:
                        if new.get([fresh]) != {fresh: outcomes[fresh]}:
                            faults.append("a fresh key is not there")

        def used(number: int) -> None:
            try:
                use(number)
            except Exception as error:
                faults.append(error)

        threads = [threading.Thread(target=used, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(12):
            vault.rotate()
        stop.set()
        for thread in threads:
            thread.join()
        assert not faults

    # --- not there ------------------------------------------------------------------------------------------------

    def test_nothing_is_there(self, nowhere: Opener) -> None:
        with pytest.raises(NotFound) as caught:
            nowhere()
        assert caught.value.code == "key_store_missing"

    @pytest.fixture
    def nowhere(self) -> Opener:
        """Opens where no vault is."""
        raise NotImplementedError

    def test_one_is_made_once(self, opener: Opener, maker: Callable[[], object]) -> None:
        with opener() as vault:
            made, secret = vault.ensure([A]), vault.token_secret
        with pytest.raises(CallerError) as caught:
            maker()
        assert caught.value.code == "key_store_exists"
        with opener() as vault:
            assert (vault.get([A]), vault.token_secret) == (made, secret)

    @pytest.fixture
    def maker(self) -> Callable[[], object]:
        """Makes a vault where `opener`'s is."""
        raise NotImplementedError
