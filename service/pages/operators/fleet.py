"""What goes on: uploads and refusals of the last minutes, what waits for somebody, silent cameras, hosts, jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from retention.witness import MAX_OFFSET_MS
from service.agreement import devices, versions
from service.agreement.devices import Standing
from service.agreement.refused import WHY
from service.metrics import STALE_MS
from service.pages.awhile import Kept
from service.pages.cameras import address_of, ffmpeg_line, ingest_place
from service.pages.door import Operator
from service.pages.paging import PAGE_ROWS, number_in, paged
from service.pages.site import Part, Site
from storage.days import day_of_ms
from storage.rows.accounts import OPERATOR_ACCOUNT, Backlog
from storage.rows.devices import DeviceFacts
from storage.rows.hosts import HostRow
from storage.rows.schedule import RunRow

KEPT_S = 5.0
"""However many operators look, the catalog is asked once in this time."""
SILENT_MS = 600_000
"""A camera that may record and uploaded nothing for so long is shown as silent."""
SILENT_SHOWN = 10
FEW_CAMERAS = 5
"""A home of so many has had its first picture; of fewer it is looked for."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the list, as a page shows it."""

    row: HostRow
    behind: int
    serves: bool
    clock_is_off: bool


@dataclass(frozen=True, slots=True)
class Home:
    """What the catalog knows of how things go."""

    backlog: Backlog
    hosts: Sequence[Host]
    runs: Sequence[RunRow]
    last_sweep: dict[str, Any] | None
    failures: int
    erasures: dict[str, int]
    silent: Sequence[Standing]
    has_accounts: bool
    has_cameras: bool
    has_pictures: bool


class Fleet(Part):
    """The handlers."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._home = Kept(KEPT_S, self._find)

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/operator", self.shown)
        site.get(router, "/operator/silent", self.silent)
        return router

    async def shown(self, request: Request, person: Operator) -> Response:
        home = await self._home.get()
        now_ms = self._desk.now_ms()
        watch = self._site.api.watch
        return self._site.page(
            request,
            "operator/fleet",
            home=home,
            rates=watch.rates(),
            workers=watch.workers(now_ms, STALE_MS),
            why=WHY,
            silent_shown=SILENT_SHOWN,
            silent_min=SILENT_MS // 60_000,
            line=ffmpeg_line(address_of(ingest_place(self._site, request), "CAMERA", "TOKEN")),
            version=0 if home.has_pictures else await self._run(versions.newest, self._desk),
        )

    def _has_picture(self, facts: DeviceFacts) -> bool:
        return bool(self._desk.catalog.latest_chunks(facts.device, limit=1))

    async def silent(self, request: Request, person: Operator) -> Response:
        after = number_in(request, "after")
        found = await self._run(
            devices.silent, self._desk, silent_ms=SILENT_MS, after=after, limit=PAGE_ROWS + 1
        )
        rows, more = paged(found, lambda one: one.facts.device)
        return self._site.page(
            request, "operator/silent", rows=rows, more=more, why=WHY, silent_min=SILENT_MS // 60_000
        )

    async def _find(self) -> Home:
        return await self._run(self._look)

    def _look(self) -> Home:
        catalog = self._site.api.services.operation
        rows, home_ms = catalog.hosts()
        newest = catalog.newest_change()
        with self._desk.reading() as books:
            backlog = books.backlog(on=day_of_ms(self._desk.now_ms()))
            owners = books.accounts(after=OPERATOR_ACCOUNT, limit=1)
        cameras = self._desk.catalog.devices(limit=FEW_CAMERAS)
        return Home(
            backlog,
            [_host(row, home_ms, newest) for row in rows],
            sorted(catalog.scheduled_runs().values()),
            catalog.last_sweep(),
            catalog.failures_since_success(),
            catalog.erasure_counts(),
            devices.silent(self._desk, silent_ms=SILENT_MS, limit=SILENT_SHOWN + 1),
            bool(owners),
            bool(cameras),
            len(cameras) == FEW_CAMERAS or any(map(self._has_picture, cameras)),
        )


def _host(row: HostRow, home_ms: int, newest: int) -> Host:
    return Host(
        row,
        max(0, newest - row.applied),
        home_ms - row.asked_ms <= row.max_stale_ms,
        abs(row.offset_ms) > MAX_OFFSET_MS,
    )
