"""Who buys, leaves, pays late and disputes, and when: drawn from a seed. And what the operator of the shop does."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any

from tests.service.shop.ledger import Charge, Deal, Ledger

Item = dict[str, Any]
DAY = timedelta(days=1)

PACKAGES = {  # months, days of storage, prices: fee and monthly fee
    "monthly": (1, 30, {"USD": [599, 599], "EUR": [549, 549]}),
    "monthly-large": (1, 60, {"USD": [1099, 1099], "EUR": [999, 999]}),
    "annual": (12, 30, {"USD": [5999, 599], "EUR": [5499, 549]}),
    "annual-large": (12, 60, {"USD": [10999, 1099], "EUR": [9999, 999]}),
    "half-year": (6, 30, {"USD": [3299, 599], "EUR": [2999, 549]}),
    "quarter": (3, 30, {"USD": [1699, 599], "EUR": [1549, 549]}),
}
THERE_ALREADY = ("monthly", "annual")
"""Packages that a catalog begins with, in one currency."""
RAISED_ON, LOWERED_ON, DEARER_ON = 150, 205, 100
"""Days of the year: on which plans that run pay more, and less; and on which a year costs new owners more."""
RAISED = {"USD": [799, 799], "EUR": [749, 749]}
LOWERED = {"USD": [999, 999], "EUR": [949, 949]}
DEARER = {"USD": [6499, 599], "EUR": [5999, 549]}
DISPUTED = 0.012


@dataclass
class Person:
    name: str
    joins: int
    currency: str
    devices: int
    tries: bool
    account: int = 0
    numbers: list[int] = field(default_factory=list)
    methods: int = 0
    bad_method: str = ""
    left: set[int] = field(default_factory=set)

    @property
    def method(self) -> str:
        return f"{self.name}-m{self.methods}"


class People:
    """See the module docstring. `acts` gives what is asked on a day, and `done` hears what came of it."""

    def __init__(self, seed: int, accounts: int, ledger: Ledger) -> None:
        self.random, self.ledger = Random(seed), ledger
        self.people = [self._person(n) for n in range(accounts)]
        self.later: dict[date, list[Item]] = defaultdict(list)
        self.made = 0
        self.seen_charges: set[str] = set()
        self.new_prices: dict[str, dict[str, list[int]]] = {}
        """Of today, by package."""
        self.bank: list[Item] = []
        """What is to be arranged at the bank: moods of methods."""

    def _person(self, n: int) -> Person:
        chance = self.random.random()
        joins = self.random.randrange(0, 75) if n % 10 else self.random.randrange(75, 240)
        currency = "EUR" if self.random.random() < 0.25 else "USD"
        return Person(f"p{n}", joins, currency, self.random.choice((1, 1, 2)), chance < 0.5)

    def name(self, what: str) -> str:
        self.made += 1
        return f"{what}-{self.made}"

    # --- a day ----------------------------------------------------------------------------------------------------

    def acts(self, day: date, number: int) -> list[Item]:
        items = self._operator(number)
        self.new_prices = {item["package"]: item["prices"] for item in items if item["do"] == "price"}
        for person in self.people:
            if person.joins == number:
                items.append({"do": "join", "name": person.name, "devices_": person.devices})
            elif person.account:
                items += self._of_person(person, day)
        items += [item for item in self.later.pop(day, []) if self._still(item, day)]
        return items

    def _still(self, item: Item, day: date) -> bool:
        """Whether what was meant to be done can still be: a plan may have ended by itself."""
        if item["do"] != "cancel":
            return True
        deal = self.ledger.deal(item["of"])
        return deal.goes_on(day) and not deal.cancelled

    def _operator(self, number: int) -> list[Item]:
        if number == 0:
            made = [
                {"do": "add_package", "package": name, "months": months if months > 1 else 0}
                | {"days": days, "prices": prices}
                for name, (months, days, prices) in PACKAGES.items()
                if name not in THERE_ALREADY
            ]
            return made + [
                {"do": "price", "package": name, "prices": PACKAGES[name][2]} for name in THERE_ALREADY
            ]
        if number == DEARER_ON:
            return [{"do": "price", "package": "annual", "prices": DEARER}]
        for on, package, prices in ((RAISED_ON, "monthly", RAISED), (LOWERED_ON, "monthly-large", LOWERED)):
            if number == on:
                return [
                    {"do": "price", "package": package, "prices": prices},
                    {"do": "apply", "package": package},
                ]
        return []

    def _of_person(self, person: Person, day: date) -> list[Item]:
        items: list[Item] = []
        for device in person.numbers:
            items += self._of_device(person, device, day)
        chance = self.random.random()
        if person.bad_method and chance < 0.12:  # most find out in time
            items.append(self._new_method(person, use=True))
            person.bad_method = ""
        elif not person.bad_method and chance < 0.0012:
            person.bad_method = f"card-{person.method}"
            self.bank.append({"method": person.bad_method, "is_so": 1})
        return items

    def _of_device(self, person: Person, device: int, day: date) -> list[Item]:
        chance = self.random.random()
        deals = [deal for deal in self.ledger.deals[device] if deal.goes_on(day)]
        open_order = any(o.device == device and o.state == "open" for o in self.ledger.orders.values())
        if open_order:
            return [self._of(person, "abandon", device=device)] if chance < 0.15 else []
        paid = [deal for deal in deals if deal.months]
        if not paid:
            wants = 0.0 if device in person.left else 0.15
            if not self.ledger.deals[device] and person.tries and device == person.numbers[0]:
                return [self._of(person, "trial", device=device)] if chance < 0.3 else []
            return [self._buy(person, device)] if chance < wants else []
        if chance < 0.003 and len(paid) < 3:
            return [self._buy(person, device)]
        open_ones = [deal for deal in paid if not deal.cancelled]
        if 0.003 <= chance < 0.0065 and open_ones:
            if self.random.random() < 0.4:
                person.left.add(device)
            return [self._cancel(person, self.random.choice(open_ones))]
        return self._by_hand(chance, [deal for deal in open_ones if not deal.is_disputed])

    def _by_hand(self, chance: float, deals: list[Deal]) -> list[Item]:
        """What operators give."""
        if not 0.9 <= chance < 0.903 or not deals:
            return []
        deal = self.random.choice(deals)
        asked = {"of": deal.name, "currency": deal.currency, "reference": self.name("hand")}
        if chance < 0.9012 and deal.paid > 100:
            return [
                asked | {"do": "give", "minor": self.random.randrange(1, deal.paid // 2), "otherwise": False}
            ]
        if chance < 0.902 and deal.paid > 100:
            return [
                asked | {"do": "give", "minor": self.random.randrange(1, deal.paid // 2), "otherwise": True}
            ]
        return [asked | {"do": "credit", "minor": self.random.randrange(1, deal.fee)}]

    def _of(self, person: Person, do: str, **more: Any) -> Item:
        return {"do": do, "account": person.account, **more}

    def _buy(self, person: Person, device: int) -> Item:
        package = self.random.choice(["monthly"] * 5 + ["monthly-large"] * 2 + list(PACKAGES))
        prices = self.new_prices.get(package) or self.ledger.packages[package][-1].prices
        price = prices[person.currency][0]
        asked = {"device": device, "package": package, "method": person.method, "reference": self.name("buy")}
        return self._of(person, "buy", minor=price, currency=person.currency, **asked)

    def _cancel(self, person: Person, deal: Deal) -> Item:
        return self._of(person, "cancel", of=deal.name)

    def _new_method(self, person: Person, *, use: bool) -> Item:
        person.methods += 1
        return self._of(person, "method", reference=person.method, use=use)

    # --- what came of it ------------------------------------------------------------------------------------------

    def joined(self, name: str, account: int, devices: list[int]) -> None:
        [person] = [person for person in self.people if person.name == name]
        person.account, person.numbers = account, devices

    def methods_of_new(self) -> list[Item]:
        """Whoever has an account sets up what to pay with."""
        return [
            self._new_method(person, use=False)
            for person in self.people
            if person.account and not person.methods
        ]

    def applied(self, package: str, day: date) -> None:
        """Some leave before another fee applies to them (11.2)."""
        for deal in self.ledger.all_deals():
            told = deal.told is not None and deal.package == package and deal.told[1] > deal.fee
            if told and self.random.random() < 0.25:
                on = day + DAY * self.random.randrange(1, 31)
                [person] = [person for person in self.people if deal.device in person.numbers]
                person.left.add(deal.device)
                self.later[on].append(self._cancel(person, deal))

    def disputes(self, day: date) -> None:
        """Of what was charged since, some is disputed later on."""
        for reference in sorted(self.ledger.charges.keys() - self.seen_charges):
            self.seen_charges.add(reference)
            if self.random.random() < DISPUTED:
                on = day + DAY * self.random.randrange(1, 40)
                self.later[on].append({"do": "dispute", "reference": reference, "outcome": "open"})

    def dispute(self, item: Item, day: date) -> Item | None:
        """The report of a dispute, and when there is the next one; None where nothing is left to be disputed."""
        charge: Charge = self.ledger.charges[item["reference"]]
        if item["outcome"] == "open":
            if charge.deal is None or charge.backs or charge.lost or charge.open_disputes:
                return None
            share = 1.0 if self.random.random() < 0.8 else self.random.random()
            item = item | {"number": self.name("dp"), "minor": max(1, int(charge.minor * share))}
            follows = ["lost"] if self.random.random() < 0.6 else ["won"]
            if follows == ["lost"] and self.random.random() < 0.3:
                follows.append("won")
        else:
            follows = item["follows"]
        if follows:
            on = day + DAY * self.random.randrange(2, 20)
            self.later[on].append(item | {"outcome": follows[0], "follows": follows[1:]})
        return item
