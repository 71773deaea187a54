"""Notices that could not be delivered, or wait. What is confirmed of them is confirmed on the account's page."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.agreement import notices
from service.pages.door import Operator
from service.pages.operators.common import one_of
from service.pages.paging import PAGE_ROWS, number_in, paged
from service.pages.site import Part
from storage.rows.accounts import NoticeState

LISTS = ("failed", "queued")


class Noticed(Part):
    """The handler."""

    def routes(self) -> APIRouter:
        router = self._site.router()
        self._site.get(router, "/operator/notices", self.listed)
        return router

    async def listed(self, request: Request, person: Operator) -> Response:
        wanted, after = one_of(request, "list", LISTS) or LISTS[0], number_in(request, "after")
        found = await self._site.calls.run(
            notices.listed,
            self._site.desk,
            person.actor,
            state=NoticeState(wanted),
            after=after,
            limit=PAGE_ROWS + 1,
        )
        rows, more = paged(found, lambda row: row.notice_id)
        return self._site.page(request, "operator/notices", rows=rows, more=more, wanted=wanted, lists=LISTS)
