"""A year of a shop, day by day: owners' wishes, the shop's runs, a bank, and a look into all books at midnight."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

from service.spawning import python_module
from tests.servers.payments import KEY
from tests.service.shop import midnight
from tests.service.shop.ledger import HOUR_MS, Ledger, day_of, midnight_ms
from tests.service.shop.people import Item, People
from tests.service.shop.working import ShopWorld

START = date(2025, 1, 31)
DAYS = 366
AWAY_FROM, AWAY_DAYS = 118, 2
"""When the gateway is away: silent on the first day, and then whoever calls is cut off."""
NOON, EVENING, LATE = 12 * HOUR_MS, 23 * HOUR_MS + 600_000, 23 * HOUR_MS + 3_000_000
MORNING = 9 * HOUR_MS
KILLED = 0.6
"""Of days; and of runs that follow one that was killed."""


class Process:
    """A child of the test that says something line by line."""

    def __init__(self, *command: str) -> None:
        self._started = subprocess.Popen(
            python_module(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._started.pid

    def ask(self, what: Any) -> None:
        assert self._started.stdin is not None
        self._started.stdin.write(json.dumps(what) + "\n")
        self._started.stdin.flush()

    def line(self) -> str:
        assert self._started.stdout is not None
        line = self._started.stdout.readline()
        assert line, "it has ended"
        return line

    def end(self) -> None:
        self._started.kill()
        self._started.communicate()


class Year:
    """See the module docstring.

    Args:
        folder: empty.
        seed: of who does what, of the bank's moods and of the kills.
        hosts: how many renew at the same moment. No worker is killed where they are several.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        till: Process,
        workers: Process,
        seed: int,
        accounts: int,
        hosts: int = 1,
    ) -> None:
        self.hosts = hosts
        self.folder, self.url, self.till, self.workers = folder, url, till, workers
        self.random = Random(f"{seed} kills")
        self.ledger = Ledger(self._came_second)
        self.people = People(seed, accounts, self.ledger)
        self.world = ShopWorld(folder, url, clock_ms=midnight_ms(START))
        self.after = 0
        self.now_ms = midnight_ms(START)
        self.away = False
        self.late: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        for name in ("monthly", "annual"):  # as a catalog begins with, until they are sold at other prices
            self.ledger.sold(name, 1 if name == "monthly" else 12, {})

    def close(self) -> None:
        self.world.__exit__(None, None, None)

    # --- a day ----------------------------------------------------------------------------------------------------

    def live(self, number: int) -> None:
        day = START + timedelta(days=number)
        self._gateway(number, day)
        items = self.people.methods_of_new() + self._dated(self.people.acts(day, number), day)
        if items:
            self.run([{"do": "clock", "ms": midnight_ms(day) + MORNING}, *items])
        while self.people.bank and not self.away:
            self.bank("decline", **self.people.bank.pop())
        self._shop(day, self._pages())
        self.people.disputes(day)
        midnight.check(self)

    def _shop(self, day: date, reports: list[Item]) -> None:
        begins = midnight_ms(day)
        renew = {"do": "renew", "hosts": self.hosts}
        refused = [
            {"do": "see_to", "reference": each, "otherwise": self.random.random() < 0.3}
            for each in self.ledger.refused
        ]
        self.run(
            [
                *reports,
                {"do": "clock", "ms": begins + NOON},
                renew,
                *refused,
                {"do": "clock", "ms": begins + EVENING},
                renew,
                {"do": "clock", "ms": begins + LATE},
                renew,
                {"do": "clock", "ms": begins + 24 * HOUR_MS},
                {"do": "roll"},
            ]
        )

    def _gateway(self, number: int, day: date) -> None:
        if number == AWAY_FROM:
            self.run([{"do": "clock", "ms": midnight_ms(day) + MORNING - HOUR_MS}])
            self.away = True
            os.kill(self.till.pid, signal.SIGSTOP)
        elif number == AWAY_FROM + 1:  # what it was asked for yesterday it does now, and tells nobody
            os.kill(self.till.pid, signal.SIGCONT)
            time.sleep(0.5)
            self.bank("shut", is_so=1)
        elif number == AWAY_FROM + AWAY_DAYS:
            self.bank("shut", is_so=0)
            self._hear([], settles=False)
            self.away = False

    def _dated(self, items: list[Item], day: date) -> list[Item]:
        """Disputes become reports, which some banks send twice."""
        asked = []
        for item in items:
            if item["do"] != "dispute":
                asked.append(item)
            elif not self.away and (told := self.people.dispute(item, day)) is not None:
                asked += [self._report_of(told)] * self.random.choice((1, 1, 2))
            elif self.away:
                self.people.later[day + timedelta(days=1)].append(item)
        return asked

    def _report_of(self, item: Item) -> Item:
        charge = self.ledger.charges[item["reference"]]
        told = {"about": "dispute", "reference": charge.reference, "dispute": item["number"]}
        told |= {"outcome": item["outcome"], "amount_minor": item["minor"], "currency": charge.currency}
        return {"do": "report", **self.bank("signed", told=json.dumps(told))}

    def _pages(self) -> list[Item]:
        """Most owners go where they are sent, and the bank reports most of what they confirm there."""
        asked: list[Item] = []
        if self.away or not self.ledger.has_open:
            return asked
        for reference in self.bank("pages")["pages"]:
            if self.random.random() < 0.7:
                with urllib.request.urlopen(f"{self.url}/confirm/{reference}", timeout=10):
                    pass
                if self.random.random() < 0.7:
                    asked.append({"do": "report", **self.bank("signed", reference=reference)})
        self._hear_now(settles=False)
        return asked

    # --- what is done ---------------------------------------------------------------------------------------------

    def run(self, items: list[Item]) -> None:
        """Have workers do it all, one after the other, each of which may be killed."""
        kill = KILLED if len(items) > 1 and self.hosts == 1 else 0.0
        while items:
            asked = {
                "folder": str(self.folder),
                "url": self.url,
                "answer_s": 0.3 if self.away else 10,
                "away": self.away,
                "clock_ms": self.now_ms,
                "items": items,
                "after": self.after,
                "kill": self._kill() if self.random.random() < kill else {},
            }
            self.workers.ask(asked)
            done = 0
            while not (answer := json.loads(self.workers.line())).get("ended"):
                self._hear(answer.get("lines", []), settles=False, item=items[done], answer=answer)
                done += 1
            self.counts["killed" if answer["killed"] else "workers"] += 1
            assert answer["killed"] or not answer["status"], "a worker failed: see above"
            items, kill = items[done:], kill * 0.5

    def _kill(self) -> dict[str, int]:
        if self.random.random() < 0.3:
            return {"ms": self.random.randrange(5, 150)}
        return {"step": 1 + int(self.random.expovariate(1 / 60))}

    def _hear(
        self, lines: list[Item], *, settles: bool, item: Item | None = None, answer: Item | None = None
    ) -> None:
        self.after += len(lines)
        if item is None or answer is None:
            self.ledger.take(lines, self.now_ms, settles=settles, away=self.away)
            return
        self.counts[item["do"]] += 1
        if item["do"] == "clock":
            self.now_ms = item["ms"]
        refused = answer.get("refused", "")
        if item["do"] == "buy":
            package, currency = item["package"], item["currency"]
            reference, account, device = item["reference"], item["account"], item["device"]
            if refused not in NOT_ORDERED:
                self.ledger.ordered(reference, account, device, package, currency, self.now_ms)
        if item["do"] in BEFORE and not refused:
            BEFORE[item["do"]](self, item)
        self.ledger.take(lines, self.now_ms, settles=item["do"] == "renew" and not self.away, away=self.away)
        expected = EXPECTED.get(item["do"], set())
        assert not refused or refused in expected, (item, answer)
        if refused:
            self.counts[f"{item['do']} {refused}"] += 1
        getattr(self, f"_after_{item['do']}", lambda item, answer: None)(item, answer)

    def _hear_now(self, *, settles: bool) -> None:
        lines = self.bank("journal", after=self.after)["lines"]
        self._hear(lines, settles=settles)

    def _after_buy(self, item: Item, answer: Item) -> None:
        refused = answer.get("refused", "")
        if refused in ("", "payment_declined"):
            self.ledger.heard(item["reference"], self.now_ms)
        if refused not in NOT_ORDERED:
            state = self.ledger.orders[item["reference"]].state
            wanted = {"": "paid", "payment_declined": "declined"}.get(refused, "open")
            assert state == wanted, (item, answer, state)

    def _after_join(self, item: Item, answer: Item) -> None:
        made = answer["done"]
        self.ledger.joined(made["account"], made["devices"])
        self.people.joined(item["name"], made["account"], made["devices"])

    def _after_trial(self, item: Item, answer: Item) -> None:
        self.ledger.tried(item["device"], day_of(self.now_ms))

    def _after_add_package(self, item: Item, answer: Item) -> None:
        self.ledger.sold(item["package"], item["months"] or 1, item["prices"])

    def _after_price(self, item: Item, answer: Item) -> None:
        months = self.ledger.packages[item["package"]][-1].months
        self.ledger.sold(item["package"], months, item["prices"])

    def _after_apply(self, item: Item, answer: Item) -> None:
        day = day_of(self.now_ms)
        self.ledger.applied(item["package"], day)
        self.people.applied(item["package"], day)

    def _after_method(self, item: Item, answer: Item) -> None:
        if answer.get("refused"):  # not answered: its owner asks again tomorrow
            self.people.later[day_of(self.now_ms) + timedelta(days=1)].append(item)
        elif item["use"]:
            self.ledger.healed(item["account"])

    def _after_report(self, item: Item, answer: Item) -> None:
        told = json.loads(item["body"])
        if told["about"] == "payment":
            self.ledger.heard(told["reference"], self.now_ms)
        else:
            self.ledger.disputed(
                told["reference"], told["dispute"], told["outcome"], told["amount_minor"], day_of(self.now_ms)
            )

    def _after_see_to(self, item: Item, answer: Item) -> None:
        line = self.ledger.refused[item["reference"]]
        if answer.get("refused") == "not_refused":
            return  # void by now, or its answer is not heard yet
        del self.ledger.refused[item["reference"]]
        if item["otherwise"] and not answer.get("refused"):
            self.ledger.paid_otherwise(line["of"], line["amount_minor"])

    # --- the bank and the books -----------------------------------------------------------------------------------

    def bank(self, what: str, **query: object) -> Item:
        with urllib.request.urlopen(f"{self.url}/rehearse/{what}?{urlencode(query)}", timeout=10) as answer:
            return dict(json.load(answer))

    def _came_second(self, reference: str) -> bool:
        with self.world.desk.reading() as books:
            return books.payment(f"{reference}.r1") is not None


def _abandon(year: Year, item: Item) -> None:
    year.ledger.abandoned(item["device"])


def _cancel(year: Year, item: Item) -> None:
    year.counts["given back"] += year.ledger.cancelled(item["of"], day_of(year.now_ms))


def _give(year: Year, item: Item) -> None:
    year.ledger.given(item["of"], item["minor"], otherwise=item["otherwise"])


def _credit(year: Year, item: Item) -> None:
    year.ledger.credited(item["of"], item["minor"])


BEFORE = {"abandon": _abandon, "cancel": _cancel, "give": _give, "credit": _credit}
"""What is owed from then on, before the bank's lines that follow from it."""
NOT_ORDERED = {"purchase_open", "method_not_usable"}
UNPAID = {"payment_declined", "payment_unavailable", "payment_pending", "needs_customer"}
EXPECTED: dict[str, set[str]] = {
    "buy": UNPAID | NOT_ORDERED,
    "method": {"payment_unavailable"},
    "abandon": {"no_open_purchase"},
    "see_to": {"not_refused", "not_found"},
}


@contextmanager
def shop(folder: Path, *, seed: int, accounts: int, hosts: int = 1) -> Iterator[Year]:
    """The processes of a shop, and its year."""
    folder.mkdir()
    keys = folder.parent / "gateway-keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    till = Process("tests.service.shop.till", "--key-file", str(keys), "--seed", str(seed))
    url = "http://127.0.0.1:" + till.line().rsplit(" ", 1)[-1].strip()
    year = None
    workers = None
    try:
        data = folder / "data"
        ShopWorld(data, url, clock_ms=midnight_ms(START)).__exit__(None, None, None)
        workers = Process("tests.service.shop.working")
        year = Year(data, url, till, workers, seed, accounts, hosts)
        yield year
    finally:
        if year is not None:
            year.close()
        if workers is not None:
            workers.end()
        till.end()
