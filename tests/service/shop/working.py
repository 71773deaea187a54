"""The shop's own process, killed at random: a child of the test that forks one worker after the other.

A line of JSON comes in: what is to be done, one thing after the other, and when the worker is to die, at one of its
steps (each call of the books, begin and commit, each write of the bitmap, before and after each call of the gateway) or
after some milliseconds. A line goes out for each thing that is done, and one when the worker has ended.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from retention.money import Money
from retention.terms import Terms
from service.agreement import (
    cancelling,
    crediting,
    devices,
    fees,
    methods,
    open_purchases,
    packages,
    purchases,
    refunding,
    renewing,
    reports,
    trials,
)
from service.agreement.desk import OPERATOR, Actor
from service.agreement.gateway.client import HttpGateway
from service.agreement.gateway.signing import REPORT, Keys, is_signed
from service.agreement.gateway.told import Report
from service.agreement.gateway.wire import Bounds, Endpoint
from service.agreement.patience import PatientGateway
from storage.errors import CallerError, ClipkeepError
from storage.rows.accounts import AccountRow, AccountState
from tests.killing import Counting
from tests.servers.payments import KEY
from tests.service.agreement.killed_money import SteppingCatalog
from tests.service.agreement.money_world import MoneyWorld

Json = dict[str, Any]
SETTINGS: Json = {"payment_threads": 4}
ROWS = 16_384
"""Devices that there is room for."""
TOLD: TypeAdapter[Any] = TypeAdapter(Report)


class ShopWorld(MoneyWorld):
    """A data folder whose money is moved by the gateway at an address."""

    def __init__(self, folder: Path, url: str, *, answer_s: float = 10, clock_ms: int | None = None) -> None:
        self.data, self.url, self.answer_s = folder, url, answer_s
        self._bounds = Bounds(min(answer_s, 5), answer_s, 65536)
        super().__init__(folder, clock_ms=clock_ms, gateway=self._open, rows=ROWS, **SETTINGS)  # type: ignore[arg-type]

    def _open(self, folder: Path) -> PatientGateway:
        gateway = HttpGateway(Endpoint(self.url, self._bounds), Keys(KEY))
        return PatientGateway(gateway, wait_s=20)

    def plan_of(self, reference: str) -> int:
        """The plan that a purchase made."""
        with self.desk.reading() as books:
            row = books.payment(reference)
        assert row is not None
        assert row.plan_id is not None, f"{reference} has no plan"
        return row.plan_id


class Killing:
    """Kills this process at its n-th step."""

    def __init__(self, at: int) -> None:
        self._left, self._lock = at, threading.Lock()

    def __call__(self, name: str) -> None:
        with self._lock:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


class Asking(Counting):
    """A gateway: it is a step before each call too."""

    def __getattr__(self, name: str) -> Any:
        call = super().__getattr__(name)
        if not callable(call):
            return call

        def stepping(*args: Any, **named: Any) -> Any:
            self._called("before")
            return call(*args, **named)

        return stepping


# --- what is asked ------------------------------------------------------------------------------------------------


def clock(world: ShopWorld, ms: int) -> Any:
    world.clock.ms = ms
    with suppress(OSError):
        _rehearse(world.url, f"clock?ms={ms}", timeout_s=5 if world.answer_s > 1 else 0.2)


def join(world: ShopWorld, name: str, devices_: int) -> Any:
    """An account with so many devices. Returns their numbers."""
    email = f"{name}@example.org"
    with world.desk.reading() as books:
        row = books.account_at(email=email)
    if row is None:
        now = world.clock.ms
        new = AccountRow(0, "owner", name, now, AccountState.ACTIVE, email=email, activated_ms=now)
        row = world.desk.write(lambda books: books.add_account(new), new_accounts=1)
    owner = Actor("owner", row.account)
    while len(found := world._devices(owner)) < devices_:
        devices.add_device(world.desk, owner, owner.account)
    return {"account": row.account, "devices": found}


def method(world: ShopWorld, account: int, reference: str, use: bool) -> Any:
    owner = Actor("owner", account)
    row = methods.set_up(world.desk, owner, account, reference)
    if use:
        methods.use(world.desk, owner, account, reference)
    return row.method


def trial(world: ShopWorld, account: int, device: int) -> Any:
    try:
        purchases.start_trial(world.desk, Actor("owner", account), device)
    except CallerError as error:
        if error.code != "trial_used":  # this same one, whose answer was lost
            raise


def buy(world: ShopWorld, account: int, device: int, package: str, **more: Any) -> Any:
    price = Money(more["minor"], more["currency"])
    started = purchases.buy(
        world.desk,
        Actor("owner", account),
        device,
        package,
        method=more["method"],
        reference=more["reference"],
        amount=price,
    )
    return str(started.subscription.plan.starts_on)


def abandon(world: ShopWorld, account: int, device: int) -> Any:
    return [str(each.state) for each in open_purchases.abandon(world.desk, Actor("owner", account), device)]


def cancel(world: ShopWorld, account: int, of: str) -> Any:
    try:
        done = cancelling.cancel(world.desk, Actor("owner", account), world.plan_of(of), why="test")
    except CallerError as error:
        if error.code == "plan_already_cancelled":  # by this same one, whose answer was lost
            return None
        raise
    return done.cancellation.refund.minor


def give(world: ShopWorld, of: str, minor: int, currency: str, reference: str, otherwise: bool) -> Any:
    money, plan = Money(minor, currency), world.plan_of(of)
    refunding.give(world.desk, OPERATOR, plan, money, why="sorry", reference=reference, otherwise=otherwise)


def credit(world: ShopWorld, of: str, minor: int, currency: str, reference: str) -> Any:
    money, plan = Money(minor, currency), world.plan_of(of)
    crediting.credit(world.desk, OPERATOR, plan, money, why="sorry", reference=reference)


def see_to(world: ShopWorld, reference: str, otherwise: bool) -> Any:
    """A refund that was refused: asked for again, or paid by other means."""
    act = refunding.paid_otherwise if otherwise else refunding.retry
    act(world.desk, OPERATOR, reference, why="seen to")


def report(world: ShopWorld, body: str, timestamp: str, signature: str) -> Any:
    """As the page for reports does."""
    raw = body.encode()
    assert is_signed(Keys(KEY).now(), REPORT, timestamp, REPORT, raw, signature)
    return str(reports.hear(world.desk, TOLD.validate_json(raw)))


def renew(world: ShopWorld, hosts: int = 1) -> Any:
    """`hosts`: so many do it at the same moment, in processes of their own."""
    if hosts > 1:
        others = [_forked(world, renew) for _ in range(hosts)]
        assert [os.waitpid(pid, 0)[1] for pid in others] == [0] * hosts
    report = renewing.renew(world.desk)
    trials.tell_ending(world.desk)
    return {"waiting": report.waiting}


def _forked(world: ShopWorld, act: Callable[[ShopWorld], Any]) -> int:
    """Do it in another process, which opens everything anew. Returns its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with ShopWorld(world.data, world.url, answer_s=world.answer_s, clock_ms=world.clock.ms) as mine:
                act(mine)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def roll(world: ShopWorld) -> Any:
    world.desk.entitlements.roll()


def add_package(world: ShopWorld, package: str, months: int, days: int, prices: dict[str, list[int]]) -> Any:
    kind = packages.PackageKind.FULL if months else packages.PackageKind.MONTHLY
    new = packages.Package(package, 1, kind, days, world.today, months=months, prices=_terms(prices))
    try:
        packages.add(world.desk, OPERATOR, new)
    except CallerError as error:
        if error.code != "package_exists":
            raise


def price(world: ShopWorld, package: str, prices: dict[str, list[int]]) -> Any:
    newest = packages.named(world.desk, package)[-1]
    if newest.prices != _terms(prices):
        packages.reprice(world.desk, OPERATOR, package, _terms(prices))


def apply(world: ShopWorld, package: str) -> Any:
    fees.apply(world.desk, OPERATOR, package)


def _terms(prices: dict[str, list[int]]) -> dict[str, Terms]:
    return {name: Terms(Money(fee, name), Money(monthly, name)) for name, (fee, monthly) in prices.items()}


ACTS: dict[str, Callable[..., Any]] = {
    act.__name__: act
    for act in (
        clock,
        join,
        method,
        trial,
        buy,
        abandon,
        cancel,
        give,
        credit,
        see_to,
        report,
        renew,
        roll,
        add_package,
        price,
        apply,
    )
}


AT_THE_BANK = {"method", "buy", "abandon", "cancel", "give", "see_to", "report", "renew"}
"""After which the bank's journal is read."""


# --- workers ------------------------------------------------------------------------------------------------------


def work(asked: Json) -> None:
    """Do one thing after the other, and say what came of it."""
    folder, named = Path(asked["folder"]), {name: asked[name] for name in ("answer_s", "clock_ms")}
    with ShopWorld(folder, asked["url"], **named) as world:
        if at := asked["kill"].get("step"):
            step = Killing(at)
            world.gateway = Asking(world.gateway, step)  # type: ignore[assignment]
            world.desk = world.desk_of(SteppingCatalog(world.catalog, step), Counting(world.bitmap, step))  # type: ignore[arg-type]
        world.desk.entitlements.recover()
        after = asked["after"]
        for item in asked["items"]:
            what = {name: value for name, value in item.items() if name != "do"}
            try:
                answer = {"done": ACTS[item["do"]](world, **what)}
            except ClipkeepError as error:
                answer = {"refused": error.code, "detail": str(error)[:300]}
            if item["do"] in AT_THE_BANK and not asked["away"]:
                answer["lines"] = lines = _rehearse(world.url, f"journal?after={after}")["lines"]
                after += len(lines)
            os.write(1, (json.dumps(answer, default=str) + "\n").encode())


def _rehearse(url: str, what: str, timeout_s: float = 10) -> Json:
    host = url.removeprefix("http://")
    with closing(HTTPConnection(host, timeout=timeout_s)) as bank:
        bank.request("GET", f"/rehearse/{what}")
        return dict(json.load(bank.getresponse()))


def main() -> None:
    gc.freeze()  # else each child copies what the others have
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(asked)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        timer = None
        if after_ms := asked["kill"].get("ms"):
            timer = threading.Timer(after_ms / 1000, os.kill, (child, signal.SIGKILL))
            timer.start()
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # until it is reaped, nobody else has its number
        if timer is not None:
            timer.cancel()
            timer.join()
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        ended = {"ended": True, "killed": killed, "status": status}
        os.write(1, (json.dumps(ended) + "\n").encode())


if __name__ == "__main__":
    main()
