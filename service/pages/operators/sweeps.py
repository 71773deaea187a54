"""The sweep: what it would do now, shown before anything is done; the run that was confirmed; reports.

Both are errands: they are carried out beside the page, one at a time, and a run is refused when it would decide
something else than what was shown. One sweep at a time acts in the whole home; its lease sees to that.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request, Response

from retention.operators import Act
from service.agreement.desk import Actor
from service.agreement.errors import Conflict
from service.agreement.texts import MAX_REASON_CHARS
from service.errands.running import Errand, Kind
from service.pages.door import Operator, allowed
from service.pages.operators.common import offered
from service.pages.site import Part, Person, Site
from storage.catalog.books import Books
from storage.errors import CallerError
from storage.rows.accounts import OPERATOR_ACCOUNT

GOOD_MS = 15 * 60_000
"""For so long the plan that was shown may be confirmed."""
REPORTS_SHOWN = 20
FAILED_SHOWN = 5
_MS = re.compile("[0-9]{1,15}")


class Sweeps(Part):
    """The handlers."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._errands = site.api.errands

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/operator/sweep", self.shown)
        site.post(router, "/operator/sweep/plan", self.plan)
        site.post(router, "/operator/sweep/run", self.run)
        site.post(router, "/operator/errand/stop", self.stop)
        return router

    async def shown(self, request: Request, person: Operator) -> Response:
        return await self._shown(request, person)

    async def _shown(self, request: Request, person: Person, error: Exception | None = None) -> Response:
        reports, failed, runs = await self._run(self._reports)
        plan = self._errands.newest(Kind.PLAN)
        confirms = self._seal(person, plan.ended_ms, plan.answer) if plan and plan.answer else ""
        shown: dict[str, Any] = {
            "plan": plan,
            "confirms": confirms,
            "sweep": self._errands.newest(Kind.SWEEP),
            "current": self._errands.current,
            "reports": reports,
            "failed": failed,
            "runs": runs,
            "may": offered(person),
        }
        if error is not None:
            return await self._site.again(request, error, "operator/sweep", **shown)
        return self._site.page(request, "operator/sweep", **shown)

    def _reports(self) -> tuple[Any, Any, Any]:
        catalog = self._site.api.services.operation
        return (
            catalog.sweep_reports(limit=REPORTS_SHOWN),
            catalog.failed_sweeps(limit=FAILED_SHOWN),
            sorted(catalog.scheduled_runs().values()),
        )

    async def plan(self, request: Request, person: Operator) -> Response:
        """It changes nothing, so whoever may look may ask for it."""
        try:
            form = await self._site.form(request)
            self._errands.begin(
                Errand(Kind.PLAN, person.actor.operator, allow_bulk=form.ticked("allow_bulk"))
            )
        except CallerError as error:
            return await self._shown(request, person, error)
        return self._site.to("/operator/sweep")

    async def run(self, request: Request, person: Operator) -> Response:
        try:
            form = await self._site.form(request)
            why = form.text("reason", MAX_REASON_CHARS)
            actor = allowed(person, Act.DESTROY, why)
            decision, at, bulk = form["decision"], form["at"], form["allow_bulk"]
            sealed = self._site.forgery.is_sealed(_words(decision, at, bulk), person.token, form["confirms"])
            if not sealed or not _MS.fullmatch(at):
                raise Conflict("confirm a plan that was shown to you here", code="plan_changed")
            if self._desk.now_ms() - int(at) > GOOD_MS:
                raise Conflict(
                    "this plan is too old; have a new one made, and look at it", code="plan_changed"
                )
            errand = Errand(Kind.SWEEP, actor.operator, allow_bulk=bulk == "1", confirmed=decision)
            self._errands.require_free()
            await self._run(self._record, actor, why, bulk)
            self._errands.begin(errand)
        except CallerError as error:
            return await self._shown(request, person, error)
        return self._site.to("/operator/sweep")

    async def stop(self, request: Request, person: Operator) -> Response:
        """What is under way, whatever it is: what was done stays done, and the next pass goes on."""
        try:
            await self._site.form(request)
            allowed(person, Act.DESTROY, "stopped on its page")
            self._errands.stop()
        except CallerError as error:
            return await self._shown(request, person, error)
        return self._site.to("/operator/sweep")

    def _record(self, actor: Actor, why: str, bulk: str) -> None:
        def work(books: Books) -> None:
            facts = {"allow_bulk": bulk == "1"}
            self._desk.record(books, actor, OPERATOR_ACCOUNT, "sweep_begun", why=why, facts=facts)

        self._desk.write(work)

    def _seal(self, person: Person, at_ms: int | None, answer: dict[str, Any]) -> str:
        words = _words(answer["decision"], str(at_ms), "1" if answer["allow_bulk"] else "")
        return self._site.forgery.sealed(words, person.token)


def _words(decision: str, at: str, bulk: str) -> str:
    return f"sweep {decision} {at} {bulk}"
