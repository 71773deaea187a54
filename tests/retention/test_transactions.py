"""Changes of the account books and of several devices in one transaction: the bitmap never allows more than the
catalog, before the commit, after it, or when the writer dies (invariants 2 and 9)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retention.bitmap import ALL_DEVICES, PRESENT, SUSPENDED, TERMINATED, Row
from retention.entitlements import bitmap_row
from retention.erasure import mark_terminated
from storage.catalog.books import Books
from storage.errors import CallerError, CatalogUnavailable, NotFound
from storage.rows.accounts import AccountRow, AccountState
from storage.rows.devices import DeviceFacts
from tests.retention.test_entitlements import ROOT, agrees, compiled, elsewhere, resume, row, stop, suspend
from tests.retention.world import NOON, ROWS, TODAY, World, fast_folder, monthly


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


def register(world: World, devices: int, *, plan: bool = True) -> tuple[int, list[int]]:
    """An account with devices that may record. Returns its number and theirs."""

    def work(books: Books) -> tuple[int, list[int]]:
        account = books.add_account(AccountRow(0, "owner", "Ann", NOON, AccountState.ACTIVE)).account
        numbers = [books.add_device(account).device for _ in range(devices)]
        for number in numbers if plan else ():
            books.change_device(number, lambda f: replace(f, plans=(monthly(TODAY - 5),)), what="plan")
        return account, numbers

    return world.entitlements.transact(work, new_accounts=1)


def suspend_account(account: int, *, back: bool = False) -> Callable[[Books], None]:
    def work(books: Books) -> None:
        books.put_account(replace(books.account(account), suspended_ms=None if back else NOON))

    return work


def flags(world: World, devices: list[int]) -> list[int]:
    return [row(world, device).flags for device in devices]


# --- before and after the commit ----------------------------------------------------------------------------------


def test_a_registration_lets_its_devices_in_when_it_is_committed(world: World) -> None:
    seen: list[object] = []

    def work(books: Books) -> int:
        account = books.add_account(AccountRow(0, "owner", "Ann", NOON)).account
        device = books.add_device(account).device
        books.change_device(device, lambda f: replace(f, plans=(monthly(TODAY),)), what="plan")
        seen.append(world.bitmap.probe(device, TODAY, TODAY)[4])
        return device

    device = world.entitlements.transact(work, new_accounts=1)
    assert seen == [False]
    assert row(world, device).allows(TODAY)
    agrees(world)


def test_every_device_is_revoked_before_the_commit_and_granted_after(world: World) -> None:
    account, devices = register(world, 5)
    other = world.add()
    seen: list[list[int]] = []

    def looking(work: Callable[[Books], None]) -> Callable[[Books], None]:
        def looked(books: Books) -> None:
            work(books)
            seen.append(flags(world, devices))

        return looked

    world.entitlements.transact(looking(suspend_account(account)))
    assert flags(world, devices) == [PRESENT | SUSPENDED] * 5
    world.entitlements.transact(looking(suspend_account(account, back=True)))
    assert seen == [[PRESENT | SUSPENDED] * 5, [PRESENT | SUSPENDED] * 5]
    assert flags(world, devices) == [PRESENT] * 5
    assert row(world, other).flags == PRESENT
    agrees(world)


def test_a_device_stays_suspended_for_either_reason(world: World) -> None:
    account, [device, _] = register(world, 2)
    world.change(device, suspend)
    world.entitlements.transact(suspend_account(account))
    world.change(device, resume)
    assert row(world, device).flags & SUSPENDED
    world.entitlements.transact(suspend_account(account, back=True))
    assert row(world, device).flags == PRESENT
    agrees(world)


def test_of_several_changes_of_a_device_none_grants_before_the_commit(world: World) -> None:
    """The second change may not take the first one for what the catalog says."""
    _, [device] = register(world, 1, plan=False)
    seen: list[bool] = []

    def work(books: Books) -> None:
        books.change_device(device, lambda f: replace(f, plans=(monthly(TODAY - 3),)), what="one")
        books.change_device(device, lambda f: replace(f, token_generation=2), what="two")
        books.change_device(device, lambda f: replace(f, suspended=True), what="three")
        books.change_device(device, lambda f: replace(f, suspended=False), what="four")
        seen.append(row(world, device).allows(TODAY))

    world.entitlements.transact(work)
    assert seen == [False]
    assert row(world, device).allows(TODAY)
    agrees(world)


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[int, str, int]]:
    kind = st.sampled_from(
        ["suspend", "resume", "plan", "end", "token", "terminate", "account", "account back"]
    )
    return draw(st.lists(st.tuples(st.integers(0, 2), kind, st.integers(-6, 6)), max_size=8))


def apply(books: Books, account: int, device: int, kind: str, days: int) -> None:
    def change(facts: DeviceFacts) -> DeviceFacts:
        match kind:
            case "suspend" | "resume":
                return replace(facts, suspended=kind == "suspend")
            case "plan":
                return replace(facts, plans=(*facts.plans, monthly(TODAY + days, TODAY + days + 3)))
            case "end":
                return replace(
                    facts,
                    plans=tuple(replace(p, ends_on=max(p.starts_on - 1, TODAY + days)) for p in facts.plans),
                )
            case "token":
                return replace(facts, token_generation=facts.token_generation + 1)
            case _:
                return mark_terminated(facts, now_ms=NOON, erase=days > 3)

    if kind.startswith("account"):
        suspend_account(account, back=kind.endswith("back"))(books)
    else:
        books.change_device(device, change, what=kind)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(steps(), st.booleans()), min_size=1, max_size=4))
def test_nothing_is_allowed_that_the_catalog_does_not_allow(
    transactions: list[tuple[list[tuple[int, str, int]], bool]],
) -> None:
    """At every step of every transaction, committed or not: what readers see is within what is committed and within
    what is being decided."""
    with fast_folder() as folder, World(folder) as world:
        account, devices = register(world, 3)
        for changes, fails in transactions:
            committed = {device: compiled(world, device) for device in devices}

            def work(
                books: Books,
                changes: list[tuple[int, str, int]] = changes,
                fails: bool = fails,
                committed: dict[int, Row] = committed,
            ) -> None:
                for which, kind, days in changes:
                    apply(books, account, devices[which], kind, days)
                    for device, old in committed.items():
                        seen, new = row(world, device), bitmap_row(books.device(device), TODAY)
                        assert seen.days & ~(old.days & new.days) == 0
                        assert seen.flags & (old.flags | new.flags) == old.flags | new.flags
                if fails:
                    raise ZeroDivisionError

            with suppress(ZeroDivisionError):
                world.entitlements.transact(work)
            if fails:
                assert {device: row(world, device) for device in devices} == committed
            agrees(world)


# --- what fails ---------------------------------------------------------------------------------------------------


def test_a_refusal_undoes_all_of_it(world: World) -> None:
    account, devices = register(world, 3)
    before = world.state()

    def work(books: Books) -> None:
        suspend_account(account)(books)
        books.add_device(account)
        raise CallerError("no", code="refused")

    with pytest.raises(CallerError):
        world.entitlements.transact(work)
    assert world.state() == before
    assert flags(world, devices) == [PRESENT] * 3
    with pytest.raises(NotFound):
        world.entitlements.transact(lambda books: books.account(99))
    assert world.state() == before


def test_a_failure_restores_only_the_rows_that_were_touched(world: World) -> None:
    """A fleet of millions is not written anew because one account's change was refused."""
    _, [first, *_, last] = register(world, 4)
    world.entitlements.add_devices(50, account=1, plans=[monthly(TODAY)])
    written: list[int] = []
    bitmap = world.bitmap
    write, write_rows = bitmap.write, bitmap.write_rows
    bitmap.write = lambda device, row: (written.append(device), write(device, row))  # type: ignore[assignment,method-assign,func-returns-value]
    bitmap.write_rows = lambda devices, rows: (written.extend(devices.tolist()), write_rows(devices, rows))  # type: ignore[assignment,method-assign,func-returns-value]

    def work(books: Books) -> None:
        for device in (first, last):
            books.change_device(device, suspend, what="")
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        world.entitlements.transact(work)
    assert written == [first, last, first, last]
    assert world.bitmap.unfinished == 0
    agrees(world)


def test_a_catalog_that_is_gone_leaves_denials_for_the_next_holder_to_mend(world: World) -> None:
    account, devices = register(world, 3)
    other = world.add()
    real = world.catalog.changes_after

    def work(books: Books) -> None:
        suspend_account(account)(books)

        def broken(number: int) -> tuple[list[int], int]:
            raise CatalogUnavailable("injected: gone")

        world.catalog.changes_after = broken  # type: ignore[method-assign]
        raise CatalogUnavailable("injected: the disk is full")

    with pytest.raises(CatalogUnavailable):
        world.entitlements.transact(work)
    assert flags(world, devices) == [PRESENT | SUSPENDED] * 3
    assert world.bitmap.unfinished == ALL_DEVICES
    world.catalog.changes_after = real  # type: ignore[method-assign]
    world.change(other, suspend)
    assert flags(world, devices) == [PRESENT] * 3
    agrees(world)


def test_no_more_devices_than_rows(world: World) -> None:
    account, [device] = register(world, 1)
    world.entitlements.add_devices(ROWS - 2 - device, account=1, plans=())
    before = world.state()

    def work(books: Books) -> None:
        books.add_device(account)
        books.add_device(account)

    with pytest.raises(CallerError) as caught:
        world.entitlements.transact(work)
    assert caught.value.code == "too_many_devices"
    assert world.state() == before
    world.entitlements.transact(lambda books: books.add_device(account))
    agrees(world)


def test_a_change_that_another_host_made_is_seen_first(world: World) -> None:
    account, [device] = register(world, 1)
    elsewhere(world, device, suspended=True)
    world.entitlements.transact(lambda books: books.account(account))  # a transaction that changes nothing
    assert row(world, device).flags & SUSPENDED
    agrees(world)


def test_a_cancelled_account_is_denied_for_good(world: World) -> None:
    account, devices = register(world, 2)

    def work(books: Books) -> None:
        for device in devices:
            books.change_device(
                device, lambda f: mark_terminated(f, now_ms=NOON, erase=True), what="owner: closed"
            )
        books.erase_account(account, cancelled_on=TODAY)

    world.entitlements.transact(work)
    for device in devices:
        assert row(world, device).flags & (SUSPENDED | TERMINATED) == SUSPENDED | TERMINATED
        assert row(world, device).days == 0
    agrees(world)


# --- who is killed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mend", ["replay", "recover", "transact", "roll"])
def test_a_writer_killed_before_its_commit_is_mended_by_the_next_holder(world: World, mend: str) -> None:
    account, devices = register(world, 3)
    before = [row(world, device) for device in devices]
    killed(world, "revoke_and_die", account)
    assert flags(world, devices) == [PRESENT | SUSPENDED] * 3
    assert world.bitmap.unfinished == ALL_DEVICES
    with world.catalog.books() as books:
        assert books.account(account).suspended_ms is None
    if mend == "transact":
        world.entitlements.transact(lambda books: None)
    else:
        getattr(world.entitlements, mend)()
    assert [row(world, device) for device in devices] == before
    agrees(world)


def test_a_writer_killed_after_its_commit_is_finished_by_the_next_holder(world: World) -> None:
    account, devices = register(world, 3)
    world.entitlements.transact(suspend_account(account))
    killed(world, "grant_and_die", account)
    assert flags(world, devices) == [PRESENT | SUSPENDED] * 3
    assert not any(world.catalog.device(device).account_suspended for device in devices)
    assert world.entitlements.replay() == 3
    assert flags(world, devices) == [PRESENT] * 3
    agrees(world)


def test_of_transactions_of_several_processes_each_is_whole(world: World) -> None:
    """One trial per account, ever, whoever asks how often at once (agreement 7.1)."""
    account, devices = register(world, 3, plan=False)
    processes = [child(world, "start_trial", account) for _ in range(4)]
    results = []
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
        results.append(out.strip())
    assert sorted(results) == ["refused"] * 3 + ["started"]
    assert sum(row(world, device).allows(TODAY) for device in devices) == 1
    agrees(world)


def revoke_and_die(world: World, account: int) -> None:
    def work(books: Books) -> None:
        suspend_account(account)(books)
        stop()

    world.entitlements.transact(work)


def grant_and_die(world: World, account: int) -> None:
    entitlements = world.entitlements
    real: Callable[[int], tuple[list[int], int]] = world.catalog.changes_after
    calls = iter([real])  # the replay before the transaction; the one after it does not come

    def changes_after(number: int) -> tuple[list[int], int]:
        for call in calls:
            return call(number)
        stop()
        raise AssertionError("killed")

    world.catalog.changes_after = changes_after  # type: ignore[method-assign]
    entitlements.transact(suspend_account(account, back=True))


def start_trial(world: World, account: int) -> None:
    def work(books: Books) -> None:
        found = books.account(account)
        if found.trial_ms is not None:
            raise CallerError("one trial per account", code="trial_used")
        books.put_account(replace(found, trial_ms=NOON))
        device = books.devices_of(account)[0].device
        books.change_device(
            device, lambda f: replace(f, plans=(*f.plans, monthly(TODAY, TODAY + 13))), what="trial"
        )

    try:
        world.entitlements.transact(work)
    except CallerError:
        print("refused")
    else:
        print("started")


ROLES = {role.__name__: role for role in (revoke_and_die, grant_and_die, start_trial)}


def child(world: World, role: str, account: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __name__, role, str(world.folder), str(account)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def killed(world: World, role: str, account: int) -> None:
    with child(world, role, account) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
        finally:
            process.kill()


if __name__ == "__main__":
    with World(Path(sys.argv[2])) as one:
        ROLES[sys.argv[1]](one, int(sys.argv[3]))
