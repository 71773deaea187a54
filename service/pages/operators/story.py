"""An account's whole story on one page, with what may be done about it; and its whole history, page by page."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from fastapi import APIRouter, Request, Response

from retention.eligibility import Reason
from retention.money import Money
from service.agreement import closing, devices, notices, records
from service.agreement.details import by_hand
from service.agreement.devices import Standing
from service.agreement.refused import WHY
from service.api.door import Account
from service.pages.door import Operator
from service.pages.operators.common import offered
from service.pages.paging import PAGE_ROWS, number_in, paged
from service.pages.site import Part, Person, Site
from storage.rows.accounts import (
    OPERATOR_ACCOUNT,
    AcceptanceRow,
    AccountRow,
    AccountState,
    BlockKind,
    BlockRow,
    ClosingState,
    EventRow,
    NoticeRow,
    PaymentKind,
    PaymentRow,
    PaymentState,
)

CAMERAS_SHOWN = 100
NEWEST_SHOWN = 30
"""Of payments, notices and events."""


class _Newest(TypedDict):
    limit: int
    newest_first: bool


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment, and what may be done about it."""

    row: PaymentRow

    @property
    def money(self) -> Money:
        return Money(self.row.minor, self.row.currency)

    @property
    def may_be_seen_to(self) -> bool:
        """Whether the gateway refused it, and somebody has to pay it by other means, or ask again."""
        return self.row.kind is PaymentKind.REFUND and self.row.state is PaymentState.FAILED

    @property
    def may_be_taken_back(self) -> bool:
        """Whether it is an entry that a counter-entry takes back (`crediting.take_back`)."""
        if self.row.kind is PaymentKind.CREDIT:
            return self.row.state is PaymentState.DONE
        if self.row.kind is not PaymentKind.REFUND:
            return False
        given_up = self.row.state is PaymentState.FAILED and by_hand(self.row) is not None
        return given_up or self.row.state is PaymentState.PAID_OTHERWISE


@dataclass(frozen=True, slots=True)
class Story:
    """What is known of an account. `more_*`: there is more than is shown."""

    row: AccountRow
    cameras: Sequence[Standing]
    more_cameras: int | None
    progress: closing.Progress
    blocks: Sequence[BlockRow]
    payments: Sequence[Paid]
    more_payments: bool
    notices: Sequence[NoticeRow]
    more_notices: bool
    events: Sequence[EventRow]
    more_events: bool
    accepted: Sequence[AcceptanceRow]

    @property
    def is_owner(self) -> bool:
        return self.row.account != OPERATOR_ACCOUNT and self.row.state is not AccountState.CANCELLED

    @property
    def is_requested(self) -> bool:
        return self.row.closing is ClosingState.REQUESTED

    @property
    def is_approved(self) -> bool:
        return self.row.closing is ClosingState.APPROVED

    @property
    def reasons(self) -> Sequence[Reason]:
        """Why its owner can't cancel it now."""
        return self.progress.blocks if self.is_owner else ()


class Stories(Part):
    """The handlers."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/operator/accounts/{account}", self.shown)
        site.get(router, "/operator/accounts/{account}/history", self.history)
        return router

    async def shown(self, request: Request, account: Account, person: Operator) -> Response:
        return await story_page(self._site, request, person, account)

    async def history(self, request: Request, account: Account, person: Operator) -> Response:
        after = number_in(request, "after")
        row = await self._run(records.account, self._desk, person.actor, account)
        found = await self._run(
            records.events, self._desk, person.actor, account, after=after, limit=PAGE_ROWS + 1
        )
        rows, more = paged(found, lambda event: event.event_id)
        return self._site.page(request, "operator/history", row=row, rows=rows, more=more)


async def story_page(
    site: Site, request: Request, person: Person, account: int, error: Exception | None = None
) -> Response:
    """The page; with what is the matter when a form of it was refused. Raises NotFound."""
    after = number_in(request, "after")
    found = await site.calls.run(_story, site, person, account, after)
    shown = {
        "story": found,
        "may": offered(person),
        "why": WHY,
        "key": secrets.token_urlsafe,
        "kinds": list(BlockKind),
    }
    if error is not None:
        return await site.again(request, error, "operator/story", **shown)
    return site.page(request, "operator/story", **shown)


def _story(site: Site, person: Person, account: int, after: int) -> Story:
    desk, actor = site.desk, person.actor
    row = records.account(desk, actor, account)
    cameras, more = paged(
        devices.devices_of(desk, actor, account, after=after, limit=CAMERAS_SHOWN + 1),
        lambda one: one.facts.device,
        CAMERAS_SHOWN,
    )
    newest: _Newest = {"limit": NEWEST_SHOWN + 1, "newest_first": True}
    paid = records.payments(desk, actor, account, **newest)
    told = notices.listed(desk, actor, account=account, **newest)
    events = records.events(desk, actor, account, **newest)
    return Story(
        row,
        cameras,
        more,
        closing.progress(desk, actor, account),
        [block for block in records.blocks(desk, actor, account) if block.lifted_ms is None],
        [Paid(one) for one in paid[:NEWEST_SHOWN]],
        len(paid) > NEWEST_SHOWN,
        told[:NEWEST_SHOWN],
        len(told) > NEWEST_SHOWN,
        events[:NEWEST_SHOWN],
        len(events) > NEWEST_SHOWN,
        records.acceptances(desk, actor, account),
    )
