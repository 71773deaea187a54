"""Housekeeping: every chore has its turn, whatever becomes of the others."""

from __future__ import annotations

import threading

import pytest
import structlog
import trio

from service.agreement import registration
from service.agreement.desk import Desk
from service.agreement.senders import FileSender, SendLater
from service.housekeeping import ENDINGS_EVERY_S, SENT_EVERY_S, Chore, DaysAhead, Uses, chores, keep_house
from service.playback.used import Used
from storage.days import MS_PER_DAY
from storage.errors import CatalogUnavailable, WorldError
from storage.rows.accounts import NoticeRow, NoticeState, SessionRow
from tests.service.world import TODAY, World

SOON_S = 20.0


def uses_of(desk: Desk) -> Uses:
    return Uses(desk, devices=Used(), accounts=Used())


async def test_one_that_fails_or_hangs_keeps_none_of_the_others(world: World) -> None:
    runs: dict[str, int] = {"fails": 0, "broken": 0, "works": 0}
    enough, let_go = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def fails() -> None:
        runs["fails"] += 1
        raise WorldError("the mail server is away", code="away")

    def broken() -> None:
        runs["broken"] += 1
        raise ZeroDivisionError

    def works() -> None:
        runs["works"] += 1
        if min(runs.values()) >= 3:
            trio.from_thread.run_sync(enough.set, trio_token=token)

    tasks = [
        Chore("hangs", 0.0, lambda: let_go.wait(SOON_S)),
        *(Chore(f.__name__, 0.001, f) for f in (fails, broken, works)),
    ]
    with structlog.testing.capture_logs() as logs, trio.fail_after(SOON_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_house, tasks)
            await enough.wait()
            let_go.set()
            nursery.cancel_scope.cancel()
    assert {(log["event"], log["chore"]) for log in logs} == {("chore_failed", "fails"), ("bug", "broken")}
    assert any(log.get("code") == "away" for log in logs)


def test_all_that_is_to_be_done_is_done(world: World) -> None:
    desk, used, accounts = world.desk(), Used(), Used()
    uses = Uses(desk, devices=used, accounts=accounts)
    registration.register(
        desk,
        email="ada@example.org",
        mobile=None,
        password="correct horse battery",
        name="Ada",
        accepts_version=1,
        client="x",
    )
    used.note(1, TODAY)
    old = SessionRow(bytes(32), 1, 0, world.clock.ms - 8 * MS_PER_DAY)
    desk.write(lambda books: (books.add_session(old), books.reserve_address(b"h" * 32, until_day=TODAY - 1)))
    files = FileSender(world.folder / "notices", "clipkeep@localhost")
    done = {c.name: c.run() for c in chores(desk, {"email": files}, uses, world.witness, every_s=60.0)}
    assert done == {
        "codes": {"delivered": 1, "delayed": 0, "failed": 0, "closed": 0},
        "notices": {"delivered": 0, "delayed": 0, "failed": 0, "closed": 0},
        "announcements": {"delivered": 0, "delayed": 0, "failed": 0, "closed": 0},
        "closings": {"closed": []},
        "payments": {},
        "stale": {"rows": 2},
        "erased": {"left": False},
        "corrections": {},
        "endings": {"told": 0},
        "used": None,
        "accepted": {"accepted": 0},
    }
    assert len(list((world.folder / "notices").iterdir())) == 1
    with desk.reading() as books:
        assert books.last_used_on(1) == TODAY
        [notice] = books.notices(purpose="activate")
        assert notice.state is NoticeState.DELIVERED


def test_a_mail_server_that_is_away_is_told_in_numbers_only(world: World) -> None:
    desk = world.desk()

    class Away:
        def send(self, notice: NoticeRow) -> None:
            raise SendLater(f"{notice.address} can't be reached")

    registration.register(
        desk,
        email="ada@example.org",
        mobile=None,
        password="correct horse battery",
        name="",
        accepts_version=1,
        client="x",
    )
    [chore, *_] = chores(desk, {"email": Away()}, uses_of(desk), world.witness, every_s=60.0)
    assert chore.run() == {"delivered": 0, "delayed": 1, "failed": 0, "closed": 0}


def test_chores_come_as_often_as_configured(world: World) -> None:
    desk = world.desk()
    made = chores(desk, {}, uses_of(desk), world.witness, every_s=7.0)
    assert {chore.name: chore.every_s for chore in made if chore.every_s != 7.0} == {
        **dict.fromkeys(("codes", "notices", "announcements"), SENT_EVERY_S),
        "endings": ENDINGS_EVERY_S,
    }
    often = chores(desk, {}, uses_of(desk), world.witness, every_s=0.5)
    assert {chore.every_s for chore in often} == {0.5, ENDINGS_EVERY_S}
    assert len({chore.name for chore in made}) == len(made)


def test_what_tomorrow_needs_is_made_ready_once_a_day(world: World) -> None:
    made: list[int] = []

    class Catalog:
        def make_ready(self, day: int) -> None:
            if len(made) == 1:
                made.append(-1)
                raise CatalogUnavailable("away")
            made.append(day)

    ahead = DaysAhead(Catalog(), world.clock)  # type: ignore[arg-type]
    today = world.clock.ms // MS_PER_DAY
    ahead()
    ahead()
    assert made == [today]
    world.clock.ms += MS_PER_DAY
    with pytest.raises(CatalogUnavailable):
        ahead()
    ahead()
    ahead()
    assert made == [today, -1, today + 1], "what failed is done again"
