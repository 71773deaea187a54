"""What is kept, by the day on which it expires: the map of the store's next months."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from service.pages.awhile import Kept
from service.pages.door import Operator
from service.pages.site import Part, Site
from storage.rows.recordings import DayTotals

KEPT_S = 60.0
"""The sum goes over all segments, some 1 s for a million of them: at most once in this time."""
LAST_DAY = 1 << 20
BAR = 1000
"""Width of the longest bar, in units of its picture."""


@dataclass(frozen=True, slots=True)
class Day:
    totals: DayTotals
    width: int


@dataclass(frozen=True, slots=True)
class Map:
    """All days, and their sums."""

    days: tuple[Day, ...]
    segments: int
    chunks: int
    size_bytes: int


class Holding(Part):
    """The handler."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._map = Kept(KEPT_S, self._find)

    def routes(self) -> APIRouter:
        router = self._site.router()
        self._site.get(router, "/operator/storage", self.shown)
        return router

    async def shown(self, request: Request, person: Operator) -> Response:
        found = await self._map.get()
        return self._site.page(request, "operator/storage", map=found, today=self._site.desk.today(), bar=BAR)

    async def _find(self) -> Map:
        return await self._site.calls.run(self._look)

    def _look(self) -> Map:
        return map_of(self._site.api.services.operation.open_days(LAST_DAY))


def map_of(days: list[DayTotals]) -> Map:
    """With bars against the fullest day."""
    most = max((day.size_bytes for day in days), default=0) or 1
    return Map(
        tuple(Day(day, -(-day.size_bytes * BAR // most)) for day in days),
        sum(day.segments for day in days),
        sum(day.chunks for day in days),
        sum(day.size_bytes for day in days),
    )
