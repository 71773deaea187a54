"""service.playback.sharing: who may hold how much, who waits, and who is served first."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st

from service.playback import JOBS_SHARE, Sharer, Shares
from tests.service.world import refused

A, B, C = (Sharer(account, "its viewer") for account in "abc")


def viewer(account: str, number: int) -> Sharer:
    return Sharer(account, number)


async def test_room_is_waited_for_and_refused_in_the_end(autojump_clock: trio.abc.Clock) -> None:
    shares = Shares(100, account_share=1, viewer_share=1)
    await shares.take(A, 60)
    await shares.take(A, 40)
    with refused("overloaded"):
        await shares.take(B, 1, wait_s=5)
    assert shares.held == 100
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shares.take, B, 50)
        await trio.sleep(4)
        shares.give(A, 40)
        await trio.sleep(0.5)
        assert shares.held == 60
        shares.give(A, 60)
    assert shares.held == 50
    shares.give(B, 50)
    await shares.take(A, 1000)  # alone it may pass the bound, else it never could
    with refused("overloaded"):
        await shares.take(B, 1, wait_s=5)


def most(shares: Shares, who: Sharer, amount: int = 1) -> int:
    """Take until no more can be had."""
    count = 0
    while shares.try_take(who, amount):
        count += 1
    return count * amount


def test_of_three_media_jobs_an_export_has_two_and_whoever_else_comes_the_third() -> None:
    shares = Shares(3, account_share=JOBS_SHARE, viewer_share=1)
    assert most(shares, A) == 2
    assert most(shares, viewer("a", 2)) == 0, "of the same account"
    assert most(shares, B) == 1
    shares.give(A, 1)
    assert most(shares, A) == 0, "while somebody else has one, it is half of what is left"
    shares.give(B, 1)
    assert most(shares, A) == 1
    for processes, wanted in ((1, 1), (2, 1), (6, 4)):
        assert most(Shares(processes, account_share=JOBS_SHARE, viewer_share=1), A) == wanted


def test_an_account_has_half_of_what_the_others_leave_and_a_viewer_half_of_that() -> None:
    shares = Shares(256)
    assert most(shares, viewer("a", 1)) == 64
    assert most(shares, viewer("a", 2)) == 32
    assert most(shares, viewer("a", 3)) == 16
    for number in range(4, 1000):
        most(shares, viewer("a", number))
    assert shares.held == 128, "whoever it is, and however many tokens he makes"
    assert most(shares, viewer("b", 1)) == 32
    for number in range(2, 1000):
        most(shares, viewer("b", number))
    assert shares.held == 192
    assert shares.try_take(C, 16), "a third one finds room for a whole chunk"


def test_who_holds_nothing_may_hold_something() -> None:
    shares = Shares(2)
    assert most(shares, viewer("a", 1)) == 1
    assert most(shares, viewer("a", 2)) == 0
    assert most(shares, viewer("b", 1)) == 1
    large = Shares(32)
    assert large.try_take(A, 16)
    assert not large.try_take(A, 16)
    assert large.try_take(B, 16)


async def test_whose_account_holds_least_is_served_first(autojump_clock: trio.abc.Clock) -> None:
    shares = Shares(100, account_share=1, viewer_share=1)
    await shares.take(A, 60)
    await shares.take(B, 40)
    served: list[str] = []

    async def take(who: Sharer, name: str, amount: int) -> None:
        await shares.take(who, amount)
        served.append(name)

    async with trio.open_nursery() as nursery:
        for who, name, amount in ((A, "a1", 10), (A, "a2", 10), (B, "b", 10), (C, "c", 30)):
            nursery.start_soon(take, who, name, amount)
            await trio.sleep(1)
        shares.give(A, 20)
        await trio.sleep(1)
        assert served == [], "c needs more; room is kept for it"
        assert not shares.try_take(B, 1), "nobody passes those who wait"
        shares.give(A, 10)
        await trio.sleep(1)
        assert served == ["c"]
        for name in ("a1", "b", "a2"):  # a holds 30 and b 40; then both 40, and it is b's turn
            shares.give(C, 10)
            await trio.sleep(1)
            assert served[-1] == name


async def test_who_is_over_his_share_keeps_nobody_else_waiting(autojump_clock: trio.abc.Clock) -> None:
    shares = Shares(256)
    assert most(shares, A, 16) == 64
    async with trio.open_nursery() as nursery:
        for _ in range(24):
            nursery.start_soon(shares.take, A, 16)
        await trio.sleep(1)
        assert shares.try_take(B, 16)
        await shares.take(B, 16, wait_s=0)
        nursery.cancel_scope.cancel()
    assert shares.held == 96
    assert not shares._waiting


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 2), st.integers(1, 40), st.booleans()), max_size=60
    )
)
def test_the_sum_is_what_is_held_and_never_too_much(steps: list[tuple[str, int, int, bool]]) -> None:
    shares = Shares(100)
    held: list[tuple[Sharer, int]] = []
    for account, number, amount, gives in steps:
        if gives and held:
            shares.give(*held.pop(amount % len(held)))
        elif shares.try_take(viewer(account, number), amount):
            held.append((viewer(account, number), amount))
        assert shares.held == sum(size for _, size in held) <= 100
    for who, size in held:
        shares.give(who, size)
    assert (shares.held, shares._by_account, shares._by_sharer) == (0, {}, {})
