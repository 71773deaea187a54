"""What is sold, for anybody to read: from memory, so that strangers cost little."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import trio
from fastapi import APIRouter, Query, Response

from retention.packages import Package, sold
from service.agreement import packages
from service.api.models.base import Money
from service.api.models.subscriptions import PACKAGE_NAME, PackageView, Prices, money
from service.api.numbers import DIGITS
from service.api.problems import PrivateJSON
from service.api.public import FRESH_S, HEADERS
from service.api.routing import add
from service.api.services import Api

PAGE = 50
"""Most packages in one answer, and how many there are if nothing is asked for."""
LOOK_EVERY_S = FRESH_S
"""Between two looks at the number of the newest change; all other requests are answered from memory."""


@dataclass(slots=True)
class _Known:
    """What is sold on a day, as of one change of the packages.

    Args:
        views: of each its JSON, so that whatever page is asked for is only put together.
    """

    change: int
    day: int
    found: Sequence[Package]
    views: Sequence[bytes] = ()


class Packages:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run
        self._known = _Known(-1, -1, ())
        self._looked_s = float("-inf")

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["subscriptions"], default_response_class=PrivateJSON)
        add(router, "GET", "/v1/packages", self.packages, types={200: {"model": list[PackageView]}})
        add(router, "GET", "/v1/prices", self.prices)
        return router

    async def packages(
        self,
        after: Annotated[
            str,
            Query(pattern=f"^$|{PACKAGE_NAME}", description="name of the last package of the page before"),
        ] = "",
        limit: Annotated[int, DIGITS, Query(ge=1, le=PAGE, description="most in a page")] = PAGE,
    ) -> Response:
        """What is sold today, in order of name. A subscription keeps the fees of the day of its purchase."""
        known = await self._look()
        first = bisect_right(known.found, after, key=lambda package: package.name)
        page = b"[" + b",".join(known.views[first : first + limit]) + b"]"
        return Response(page, media_type="application/json", headers=HEADERS)

    async def prices(self) -> Prices:
        """Today's fees of two packages, in the service's own currency."""
        offered = {found.name: found.prices for found in (await self._look()).found}
        currency = self._desk.settings.currency

        def fee(name: str) -> Money | None:
            terms = offered.get(name, {}).get(currency)
            return None if terms is None else money(terms.fee)

        return Prices(monthly=fee(packages.MONTHLY), annual=fee(packages.ANNUAL))

    async def _look(self) -> _Known:
        """What is sold now, `LOOK_EVERY_S` old at most."""
        now_s, day = trio.current_time(), self._desk.today()
        if day == self._known.day and now_s - self._looked_s < LOOK_EVERY_S:
            return self._known
        known = await self._run(self._read, self._known, day)
        self._known, self._looked_s = known, now_s
        return known

    def _read(self, known: _Known, day: int) -> _Known:
        with self._desk.reading() as books:
            change = books.packages_change()
            if (change, day) == (known.change, known.day):
                return known
            found = sold(packages.all_of(books), self._desk.date())
            return _Known(
                change, day, found, [PackageView.of(one).model_dump_json().encode() for one in found]
            )
