"""Cancellations that are killed: a child process of test_killed_closings, which forks one settling after the other and
lets each die by SIGKILL one step later than the one before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from retention.entitlements import Entitlements
from service.agreement import closing
from service.agreement.desk import OPERATOR
from storage.rows.accounts import NoticeState
from tests.killing import Counting, Steps, run_and_kill
from tests.retention.world import NOON, Kept
from tests.service.agreement.office import EMAIL, MOBILE, Office

DAY_MS = 86_400_000
SETTLED_MS = NOON + 3 * DAY_MS
"""When it is settled: three days after its notices were delivered."""
DEVICES = (1, 2)
NEIGHBOUR = 3


def prepare(folder: Path) -> list[Kept]:
    """An account with two devices, whose cancellation takes effect with the next `settle`, and a neighbour's device
    with chunks in the same segment. Returns what an attacker has copied of all of them."""
    folder.mkdir()
    with Office(folder, local=True) as office:
        row, other = office.active(EMAIL, MOBILE), office.active("b@example.org")
        devices = [office.device(row.account), office.device(row.account), office.device(other.account)]
        assert devices == [*DEVICES, NEIGHBOUR]
        office.keep([(device, NOON) for device in devices])
        office.log_in()
        closing.close_by_operator(office.desk, OPERATOR, row.account, "zebra-reason")
        for notice in office.notices(row.account):
            done = replace(notice, state=NoticeState.DELIVERED, settled_ms=office.clock.ms)
            office.desk.write(lambda books, done=done: books.put_notice(done))
        return office.kept


class CountingCatalog(Counting):
    """Counts inside transactions, too: each call of the books, and the commit."""

    @contextmanager
    def books(self) -> Iterator[Any]:
        with self._real.books() as books:
            yield Counting(books, self._called)
        self._called("read")

    def transact(self, work: Callable[[Any], Any], **how: Any) -> Any:
        done = self._real.transact(lambda books: work(Counting(books, self._called)), **how)
        self._called("commit")
        return done


def settle(folder: Path, step: Steps) -> None:
    with Office(folder, clock_ms=SETTLED_MS, local=True) as office:
        catalog: Any = CountingCatalog(office.catalog, step)
        bitmap: Any = Counting(office.bitmap, step)
        desk = office.parts(
            catalog=catalog,
            entitlements=Entitlements(catalog, bitmap, office.clock),
            vault=Counting(office.vault, step),
        )
        closing.settle(desk)


if __name__ == "__main__":
    run_and_kill(Path(sys.argv[1]), settle)
