"""Account keys that are to be gone are gone, whatever was restored; and none goes that somebody may need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from retention.account_keys import UNUSED_MS, count_unused, destroy_again, destroy_unused, wrong_account_keys
from storage.contracts.blocks import writing_books
from storage.rows.accounts import AccountRow
from storage.vault import ACCOUNT_KEY_ID_BYTES
from tests.retention.world import NOON, TODAY, World, fast_folder


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


def account(world: World, name: str = "Ann") -> int:
    with writing_books(world.catalog, now_ms=NOON, new_accounts=1) as books:
        return books.add_account(AccountRow(0, "owner", name, NOON)).account


def end(world: World, account: int) -> None:
    with writing_books(world.catalog, now_ms=NOON, before_change=lambda *_: None) as books:
        books.erase_account(account, cancelled_on=TODAY)


def key_of(world: World, account: int) -> bytes:
    return next(row.key_id for row in world.catalog.account_keys() if row.account == account)


def random_id(number: int) -> bytes:
    return number.to_bytes(ACCOUNT_KEY_ID_BYTES)


def test_a_key_of_no_account_goes_when_it_is_old(world: World) -> None:
    ann = account(world)
    world.vault.make_account_keys([random_id(1)], now_ms=NOON - UNUSED_MS)
    world.vault.make_account_keys([random_id(2)], now_ms=NOON - UNUSED_MS + 1)
    world.vault.make_account_keys([random_id(3)], now_ms=NOON + 1)
    before = count_unused(world.catalog, world.vault)
    assert destroy_unused(world.catalog, world.vault, now_ms=NOON) == 1
    assert set(world.vault.account_keys([random_id(n) for n in (1, 2, 3)])) == {random_id(2), random_id(3)}
    assert count_unused(world.catalog, world.vault) == before - 1
    assert world.vault.account_keys([key_of(world, ann)])
    assert list(wrong_account_keys(world.catalog, world.vault)) == []
    assert destroy_unused(world.catalog, world.vault, now_ms=NOON) == 0


def test_a_sweep_does_it_by_a_clock_that_is_believed(world: World) -> None:
    world.vault.make_account_keys([random_id(1)], now_ms=NOON)
    report = world.sweep().run()
    assert report.destroyed_account_keys == 0
    world.clock.ms += UNUSED_MS
    assert world.sweep().run().destroyed_account_keys == 1
    assert world.vault.account_keys([random_id(1)]) == {}


def test_a_restored_vault_is_told_again(world: World) -> None:
    ann, bob = account(world), account(world, "Bob")
    key = key_of(world, ann)
    kept = world.vault.account_keys([key])
    end(world, ann)
    assert world.vault.account_keys([key]) == {}
    world.vault.keep_account_keys(kept, now_ms=NOON)  # as a backup of before would have it
    [sentence] = wrong_account_keys(world.catalog, world.vault)
    assert "is in the vault again" in sentence
    assert destroy_again(world.catalog, world.vault) == 1
    assert world.vault.account_keys([key]) == {}
    assert list(wrong_account_keys(world.catalog, world.vault)) == []
    world.vault.keep_account_keys(kept, now_ms=NOON)
    assert world.sweep().run().destroyed_account_keys == 1
    assert world.vault.account_keys([key_of(world, bob)])


def test_a_missing_key_is_told_by_its_account(world: World) -> None:
    ann = account(world)
    world.vault.destroy_account_keys([key_of(world, ann)])
    [sentence] = wrong_account_keys(world.catalog, world.vault)
    assert sentence.startswith(f"account {ann}: its key is not in the vault")
    with world.catalog.books() as books:
        assert [row.account for row in books.accounts()] == [1, ann], "in memory still"


def test_what_a_vault_that_was_away_has_left_is_done_by_a_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = account(world)
    key = key_of(world, ann)
    with monkeypatch.context() as patched:
        patched.setattr(world.catalog, "overwrite_erased", lambda: False)
        end(world, ann)
    assert world.vault.account_keys([key])
    assert world.sweep().run().destroyed_account_keys == 1
    assert world.vault.account_keys([key]) == {}
    assert world.catalog.ended_account_keys() == []


def test_a_page_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retention.account_keys.PAGE", 3)
    ids = [random_id(n) for n in range(1, 9)]
    world.vault.make_account_keys(ids, now_ms=NOON - UNUSED_MS)
    turns: list[int] = []
    assert destroy_unused(world.catalog, world.vault, now_ms=NOON, before_page=lambda: turns.append(1)) == 8
    assert len(turns) >= 3
    assert world.vault.account_keys(ids) == {}
    for _ in range(4):
        account(world)
    assert list(wrong_account_keys(world.catalog, world.vault)) == []
