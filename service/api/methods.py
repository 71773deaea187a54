"""Payment methods of an account: set up, shown, chosen for what renews itself, removed (agreement 7.2)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from service.agreement import methods
from service.agreement.payments import MAX_REFERENCE_CHARS
from service.api.door import Account, Caller
from service.api.idempotent import OnceOnly
from service.api.models.methods import MethodUse, MethodUsed, MethodView
from service.api.problems import NO_STORE, PrivateJSON
from service.api.routing import Answers, add
from service.api.services import Api

Method = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=MAX_REFERENCE_CHARS,
        description="payment method, as listed",
    ),
]


class Methods:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._calls = api.calls

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["accounts"], default_response_class=PrivateJSON)
        every = "/v1/accounts/{account}/methods"
        one = f"{every}/{{method}}"
        reads, writes = (401, 403, 404), (401, 403, 404, 409, 422)
        made: Answers = {201: {"model": MethodView}}
        add(router, "GET", every, self.listed, refuses=reads)
        add(router, "POST", every, self.set_up, refuses=(*writes, 402), types=made, status=201)
        add(router, "GET", one, self.show, refuses=(*reads, 402))
        add(router, "POST", f"{one}/use", self.use, refuses=writes)
        add(router, "DELETE", one, self.remove, refuses=(401, 403, 404, 409), status=204)
        return router

    async def listed(self, account: Account, actor: Caller) -> list[MethodView]:
        """What the account can pay with, the newest first."""
        rows = await self._calls.run(methods.methods_of, self._desk, actor, account)
        return [MethodView.of(row) for row in rows]

    async def set_up(self, account: Account, actor: Caller, once: OnceOnly) -> Response:
        """A new payment method. While it is `pending`, its owner enters it at `url`, a page of the payment gateway."""
        return await once.answer(
            actor,
            lambda _: MethodView.of(
                methods.set_up(self._desk, actor, account, once.reference(actor, "method"))
            ),
        )

    async def show(self, account: Account, method: Method, actor: Caller) -> MethodView:
        """One method. While it is `pending`, the payment gateway is asked how far it has come."""
        return MethodView.of(await self._calls.pay(methods.refresh, self._desk, actor, account, method))

    async def use(self, account: Account, method: Method, actor: Caller, asked: MethodUse) -> MethodUsed:
        """Charge what renews itself to this method from now on. A charge that failed is tried again at once."""
        done = await self._calls.run(
            methods.use, self._desk, actor, account, method, plan_id=asked.subscription
        )
        return MethodUsed(subscriptions=done)

    async def remove(self, account: Account, method: Method, actor: Caller) -> Response:
        """Remove a method that no subscription is charged to when it renews itself."""
        await self._calls.pay(methods.remove, self._desk, actor, account, method)
        return Response(status_code=204, headers=NO_STORE)
