"""What operators decide about an account and its cameras: approve, reject, suspend, lift, close, block, confirm. Each
with a reason, which the history keeps with the operator's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from retention.operators import Act
from service.agreement import closing, devices, notices, records, standing
from service.agreement.desk import Actor
from service.agreement.errors import Unprocessable
from service.agreement.texts import MAX_REASON_CHARS
from service.api.closing import BlockNumber
from service.api.door import Account, Device
from service.api.operators import NoticeNumber
from service.pages.door import Operator, allowed
from service.pages.forms import Form
from service.pages.operators.story import story_page
from service.pages.site import Part, Person, Site
from storage.errors import CallerError, NotFound
from storage.rows.accounts import BlockKind

Deed = Callable[[Actor, str, Form], object]
"""What is done, with the reason and the form. Blocks."""


class Deciding(Part):
    """The handlers. All answer with the account's page."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        account = "/operator/accounts/{account}"
        site.post(router, f"{account}/approve", self.approve)
        site.post(router, f"{account}/reject", self.reject)
        site.post(router, f"{account}/suspend", self.suspend)
        site.post(router, f"{account}/lift", self.lift)
        site.post(router, f"{account}/close", self.close)
        site.post(router, f"{account}/block", self.block)
        site.post(router, f"{account}/blocks/{{block}}/lift", self.unblock)
        site.post(router, f"{account}/cameras/{{n}}/suspend", self.suspend_camera)
        site.post(router, f"{account}/cameras/{{n}}/lift", self.lift_camera)
        site.post(router, f"{account}/notices/{{notice}}/confirm", self.confirm)
        return router

    async def approve(self, request: Request, account: Account, person: Operator) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            return closing.approve(self._desk, actor, account)

        return await self._do(request, person, account, Act.DECIDE, deed)

    async def reject(self, request: Request, account: Account, person: Operator) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            return closing.reject(self._desk, actor, account, why)

        return await self._do(request, person, account, Act.DECIDE, deed)

    async def suspend(self, request: Request, account: Account, person: Operator) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            return standing.suspend(self._desk, actor, account, why)

        return await self._do(request, person, account, Act.DECIDE, deed)

    async def lift(self, request: Request, account: Account, person: Operator) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            return standing.resume(self._desk, actor, account, why)

        return await self._do(request, person, account, Act.DECIDE, deed)

    async def close(self, request: Request, account: Account, person: Operator) -> Response:
        """Whatever stands in its way."""

        def deed(actor: Actor, why: str, form: Form) -> object:
            if not form.ticked("sure"):
                raise Unprocessable("tick the box that says that you mean it", code="not_sure")
            return closing.close_by_operator(self._desk, actor, account, why)

        return await self._do(request, person, account, Act.DESTROY, deed)

    async def block(self, request: Request, account: Account, person: Operator) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            if form["kind"] not in list(BlockKind):
                raise Unprocessable("choose a kind", code="bad_kind")
            return closing.add_block(self._desk, actor, account, BlockKind(form["kind"]), why)

        return await self._do(request, person, account, Act.DECIDE, deed)

    async def unblock(
        self, request: Request, account: Account, block: BlockNumber, person: Operator
    ) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            if all(row.block_id != block for row in records.blocks(self._desk, actor, account)):
                raise NotFound("there is no such block", subject=f"account {account}")
            return closing.lift_block(self._desk, actor, block)

        return await self._do(request, person, account, Act.DECIDE, deed)

    async def suspend_camera(
        self, request: Request, account: Account, n: Device, person: Operator
    ) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            self._require_of(actor, account, n)
            return devices.suspend(self._desk, actor, n, why=why)

        return await self._do(request, person, account, Act.DECIDE, deed)

    async def lift_camera(self, request: Request, account: Account, n: Device, person: Operator) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            self._require_of(actor, account, n)
            return devices.resume(self._desk, actor, n, why=why)

        return await self._do(request, person, account, Act.DECIDE, deed)

    async def confirm(
        self, request: Request, account: Account, number: NoticeNumber, person: Operator
    ) -> Response:
        def deed(actor: Actor, why: str, form: Form) -> object:
            found = notices.listed(self._desk, actor, account=account, after=number - 1, limit=1)
            if [row.notice_id for row in found] != [number]:
                raise NotFound("there is no such notice", subject=f"account {account}")
            return notices.confirm(self._desk, actor, number)

        return await self._do(request, person, account, Act.CARE, deed)

    def _require_of(self, actor: Actor, account: int, device: int) -> None:
        if devices.show(self._desk, actor, device).facts.account != account:
            raise NotFound("there is no such camera", subject=f"account {account}")

    async def _do(self, request: Request, person: Person, account: int, act: Act, deed: Deed) -> Response:
        return await done(self._site, request, person, account, act, deed, self._site.calls.run)


async def done(
    site: Site, request: Request, person: Person, account: int, act: Act, deed: Deed, run: Callable[..., Any]
) -> Response:
    """Do it if the operator's role allows it, and show the account; as it is, with the refusal, when there is one.

    Args:
        run: the threads that it is done in.
    """
    try:
        form = await site.form(request)
        why = form.text("reason", MAX_REASON_CHARS)
        actor = allowed(person, act, why)
        await run(deed, actor, why, form)
    except CallerError as error:
        return await story_page(site, request, person, account, error)
    return site.to(f"/operator/accounts/{account}", "done")
