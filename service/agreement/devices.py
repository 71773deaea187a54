"""Devices of an account: adding one, its tokens, what it may do now, and its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from retention.destruction import note_destroyed
from retention.entitlements import plan_of
from retention.erasure import mark_terminated
from retention.plans import Plan, period
from retention.row import MAX_VIEWER_GENERATION
from retention.subscriptions import Subscription, end_all
from retention.tokens import mint_device_token, mint_viewer_token
from service.agreement import serials
from service.agreement.desk import Actor, Desk, account_of, device_of, require_open
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.holdings import held, held_by_each, keep
from service.agreement.limits import count_failure, forgive, wrong_serials
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.days import ms_of_day
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.rows.devices import DeviceFacts, DeviceName, EraseState
from storage.rows.sightings import Sighting

MAX_VIEWER_HOURS = 24 * 366
_PAGE = 1000
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a device may do on one day.

    Args:
        state: "terminated", "suspended", "recording", "not started", "lapsed" or "no plan".
        entitled_through: the last day that is certain, plans that follow without a gap included; of a plan without an
            end that of its running month.
        retention_days: of what is recorded today.
        name: what its owner calls it.
        seen: what workers saw of it.
    """

    facts: DeviceFacts
    subscriptions: tuple[Subscription, ...]
    state: str
    entitled_through: date | None
    retention_days: int | None
    name: DeviceName
    seen: Sighting


def add_device(desk: Desk, actor: Actor, account: int, serial: str | None = None) -> DeviceFacts:
    """A new device without a plan.

    Raises:
        Unprocessable: `serial_required`, `bad_serial`; Conflict: `serial_taken`.
        NotFound, Forbidden, Conflict: of the account, see `require_open`.
        Conflict: `too_many_devices`; TooMany: `slow_down`, after wrong serials.
    """
    with desk.reading() as books:
        require_open(account_of(books, actor, account))
    # Whoever guesses at serials is slowed down: each look reads the list, and a hit would be somebody's device.
    guesses = serial is not None and serials.is_required(desk.settings) and not actor.may_see_all
    subject = f"serial:account:{account}"
    if guesses:
        desk.write(lambda books: count_failure(desk, books, subject, wrong_serials(desk)))
    serial = serials.checked(desk, account, serial)

    def work(books: Books) -> DeviceFacts:
        if guesses:
            forgive(books, subject)
        return add_in(desk, books, actor, account, serial=serial)[0]

    return desk.change(work)


def add_in(
    desk: Desk, books: Books, actor: Actor, account: int, count: int = 1, serial: str | None = None
) -> list[DeviceFacts]:
    """`add_device`, inside `Desk.change`: all of `count`, or none.

    Args:
        serial: as `serials.checked` returns it. It is of one device.
    """
    require_open(account_of(books, actor, account))
    most = desk.settings.max_devices_per_account
    if account != OPERATOR_ACCOUNT and _in_use(books, account, most) + count > most:
        raise Conflict(
            f"an account has at most {most} devices; terminate one that is no longer used",
            subject=f"account {account}",
            code="too_many_devices",
        )
    added = [books.add_device(account) for _ in range(count)]
    for facts in added:
        serials.keep_in(books, facts, serial)
        desk.record(books, actor, account, "device_added", device=facts.device)
    return added


def show(desk: Desk, actor: Actor, device: int) -> Standing:
    """Raises NotFound, also for somebody else's device."""
    return standings(desk, lambda books: [device_of(books, actor, device)])[0]


def devices_of(desk: Desk, actor: Actor, account: int, *, after: int = 0, limit: int = 100) -> list[Standing]:
    """An account's devices by number. Raises NotFound."""

    def page(books: Books) -> list[DeviceFacts]:
        account_of(books, actor, account)
        return books.devices_of(account, after=after, limit=limit)

    return standings(desk, page)


def all_devices(desk: Desk, *, after: int = 0, limit: int = 100) -> list[Standing]:
    """Everybody's devices by number: for operators."""
    facts = desk.catalog.devices(after=after, limit=limit)
    return standings(desk, lambda books: facts)


def silent(desk: Desk, *, silent_ms: int, after: int = 0, limit: int = 100) -> list[Standing]:
    """Everybody's devices that may record today and uploaded nothing for so long, by number: for operators."""
    before_ms = desk.now_ms() - silent_ms
    found = desk.catalog.silent(day=desk.today(), before_ms=before_ms, after=after, limit=limit)
    facts = desk.catalog.devices_numbered([device for device, _ in found])
    return standings(desk, lambda books: facts)


def standings(desk: Desk, choose: Callable[[Books], Sequence[DeviceFacts]]) -> list[Standing]:
    """How devices stand today, each with its name and what was seen of it: a few queries for each 1000 of them. Raises
    what `choose` raises."""
    names: dict[int, DeviceName] = {}
    subscriptions_of_each: list[tuple[Subscription, ...]] = []
    with desk.reading() as books:
        found = choose(books)
        pages = [found[start : start + _PAGE] for start in range(0, len(found), _PAGE)]
        for page in pages:
            names |= books.device_names([facts.device for facts in page])
            subscriptions_of_each += held_by_each(books, page)
    seen: dict[int, Sighting] = {}
    for page in pages:
        seen |= desk.catalog.sightings([facts.device for facts in page])
    on = desk.date()
    return [
        _standing(
            facts,
            subscriptions,
            on,
            names.get(facts.device, DeviceName(facts.device, facts.account)),
            seen[facts.device],
        )
        for facts, subscriptions in zip(found, subscriptions_of_each, strict=True)
    ]


def _standing(
    facts: DeviceFacts, subscriptions: tuple[Subscription, ...], on: date, name: DeviceName, seen: Sighting
) -> Standing:
    """What these facts come to on a day."""
    plans = [plan_of(row) for row in facts.plans]
    running = [plan for plan in plans if plan.runs(on)]
    return Standing(
        facts,
        subscriptions,
        _state(facts, plans, running, on),
        _covered(plans, running, on),
        max((plan.retention_days for plan in running), default=None),
        name,
        seen,
    )


def token(desk: Desk, actor: Actor, device: int) -> str:
    """What the camera shows when it uploads. That an operator was told is in the history. Raises NotFound."""
    if not actor.may_see_all:
        with desk.reading() as books:
            return token_of(desk, device_of(books, actor, device))

    def tell(books: Books) -> DeviceFacts:
        facts = device_of(books, actor, device)
        desk.record(books, actor, facts.account, "token_shown", device=device)
        return facts

    return token_of(desk, desk.write(tell))


def token_of(desk: Desk, facts: DeviceFacts) -> str:
    """What the camera of a device shows that was just made, or read."""
    return mint_device_token(desk.vault.token_secret, facts.device, facts.token_generation)


def new_token(desk: Desk, actor: Actor, device: int, *, why: str) -> str:
    """Void all tokens of the device, viewers' included, and return its new one.

    Raises:
        NotFound.
        Unprocessable: `bad_text`, the reason.
    """
    why = one_line(why, "the reason")

    def renew(books: Books) -> DeviceFacts:
        facts = device_of(books, actor, device)
        desk.record(books, actor, facts.account, "token_renewed", why=why, device=device)
        return books.change_device(
            device,
            lambda f: replace(f, token_generation=f.token_generation + 1),
            what=f"{actor.role}: new token",
        )

    return token_of(desk, desk.change(renew))


def suspend(desk: Desk, actor: Actor, device: int, *, why: str) -> Standing:
    """Deny a device at once, until it is resumed. Nothing is erased. A repetition changes nothing.

    Raises:
        NotFound; Unprocessable: `bad_text`, the reason.
    """
    return _set_suspended(desk, actor, device, True, why=why)


def resume(desk: Desk, actor: Actor, device: int, *, why: str) -> Standing:
    """Lift a suspension. Raises as `suspend`."""
    return _set_suspended(desk, actor, device, False, why=why)


def _set_suspended(desk: Desk, actor: Actor, device: int, suspended: bool, *, why: str) -> Standing:
    actor.require_operator()
    why = one_line(why, "the reason")
    what = "suspended" if suspended else "resumed"

    def work(books: Books) -> None:
        facts = device_of(books, actor, device)
        if facts.suspended != suspended:
            books.change_device(
                device, lambda f: replace(f, suspended=suspended), what=f"{actor.role}: {what}"
            )
            desk.record(books, actor, facts.account, f"device_{what}", why=why, device=device)

    desk.change(work)
    return show(desk, actor, device)


def viewer_token(desk: Desk, actor: Actor, device: int, *, hours: float = 24.0) -> tuple[str, int]:
    """A token to watch the device's recordings with, and when it expires in Unix seconds. That an operator made one is
    in the history.

    Raises:
        NotFound.
        Unprocessable: `bad_hours`.
    """
    if not math.isfinite(hours) or not 0 < hours <= MAX_VIEWER_HOURS:
        raise Unprocessable(
            f"a viewer token lasts more than 0 and at most {MAX_VIEWER_HOURS} hours", code="bad_hours"
        )
    # By the time that readers are judged by: after a clock was set back that is the later day's.
    now_ms = max(desk.now_ms(), ms_of_day(desk.today()))
    expires_s = now_ms // 1000 + max(1, round(hours * 3600))

    def note(books: Books) -> DeviceFacts:
        facts = device_of(books, actor, device)
        about = {"until_ms": expires_s * 1000}
        desk.record(books, actor, facts.account, "viewer_token", device=device, facts=about)
        return facts

    if actor.may_see_all:
        facts = desk.write(note)
    else:
        with desk.reading() as books:
            facts = device_of(books, actor, device)
    secret = desk.vault.token_secret
    token = mint_viewer_token(secret, device, facts.token_generation, expires_s, facts.viewer_generation)
    return token, expires_s


def end_viewer_tokens(books: Books, account: int) -> None:
    """Void all viewer tokens of the account's devices, whoever made them; cameras' tokens stay.
    Inside `Desk.change`."""

    def end(facts: DeviceFacts) -> DeviceFacts:
        return replace(facts, viewer_generation=(facts.viewer_generation + 1) % (MAX_VIEWER_GENERATION + 1))

    after = 0
    while page := books.devices_of(account, after=after, limit=_PAGE):
        for facts in page:
            if facts.terminated_ms is None:
                books.change_device(facts.device, end, what="viewer tokens ended")
        after = page[-1].device


def terminate(
    desk: Desk, actor: Actor, device: int, *, why: str, erase: bool = False
) -> tuple[Standing, int]:
    """Deny a device for good, at once, and end its plans; with `erase` destroy its keys without grace. Nothing is
    refunded (3.3), so an owner cancels a plan first. Safe to repeat.

    Returns:
        How it stands then, and how many data keys were destroyed.

    Raises:
        NotFound.
        Conflict: `cancel_first`: an owner's device has a paid plan that was not cancelled.
        Unprocessable: `bad_text`, the reason.
    """
    why = one_line(why, "the reason")

    def end(books: Books) -> DeviceFacts:
        facts = device_of(books, actor, device)
        subscriptions = held(books, facts)
        if actor.role == "owner":
            _require_cancelled(subscriptions, desk.date(), device)
        now_ms = desk.now_ms()
        books.release_serial(device)
        changed, _ = keep(
            desk,
            books,
            actor,
            facts,
            end_all(subscriptions, today=desk.date()).after,
            what="terminated",
            why=why,
            also=lambda f: mark_terminated(f, now_ms=now_ms, erase=erase),
        )
        return changed

    facts = desk.change(end)
    destroyed = 0
    if facts.erase_state is EraseState.ERASING:
        destroyed = desk.vault.destroy_device(device, below_epoch=facts.erase_epoch)
        note_destroyed(desk.catalog, desk.vault, [facts], fence=None, now_ms=desk.now_ms())
    return show(desk, actor, device), destroyed


def _require_cancelled(subscriptions: tuple[Subscription, ...], on: date, device: int) -> None:
    for subscription in subscriptions:
        plan = subscription.plan
        if subscription.terms is not None and plan.cancelled_on is None and not plan.has_ended(on):
            raise Conflict(
                f"its {plan.name} plan from {plan.starts_on} is paid; cancel that first, so that what is due of it"
                " is given back",
                subject=f"device {device}",
                code="cancel_first",
            )


def _in_use(books: Books, account: int, most: int) -> int:
    """How many devices are not terminated; counted up to `most`."""
    count = after = 0
    while count < most and (page := books.devices_of(account, after=after, limit=_PAGE)):
        count += sum(facts.terminated_ms is None for facts in page)
        after = page[-1].device
    return count


def _state(facts: DeviceFacts, plans: list[Plan], running: list[Plan], on: date) -> str:
    if facts.terminated_ms is not None:
        return "terminated"
    if facts.suspended or facts.account_suspended:
        return "suspended"
    if running:
        return "recording"
    if not plans:
        return "no plan"
    to_come = any(plan.starts_on > on and not plan.has_ended(plan.starts_on) for plan in plans)
    return "not started" if to_come else "lapsed"


def _covered(plans: list[Plan], running: list[Plan], on: date) -> date | None:
    """Through which day, what follows without a gap included; None when nothing runs."""
    through = max((_through(plan, on) for plan in running), default=None)
    for plan in sorted((plan for plan in plans if plan.has_days), key=lambda plan: plan.starts_on):
        if through is not None and on < plan.starts_on <= through + _DAY:
            through = max(through, _through(plan, plan.starts_on))
    return through


def _through(plan: Plan, on: date) -> date:
    return period(plan, on)[1] if plan.ends_on is None else plan.ends_on
