"""The cancellation of an account: asked for, taken back, decided on (agreement 6)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from service.agreement import closing, records
from service.agreement.desk import Actor
from service.api.door import Account, Caller, Operator
from service.api.models.accounts import AccountView, WithReason
from service.api.models.base import MAX_ROW
from service.api.models.closing import Block, BlockAsked, ClosingAsked, ClosingView
from service.api.models.problems import Blocked
from service.api.numbers import DIGITS
from service.api.problems import PrivateJSON
from service.api.routing import add, refusals
from service.api.services import Api
from storage.errors import NotFound
from storage.rows.accounts import BlockKind, BlockRow

BlockNumber = Annotated[int, DIGITS, Path(ge=1, le=MAX_ROW, description="block number")]


class Closings:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["account cancellation"], default_response_class=PrivateJSON)
        account, cancellation = "/v1/accounts/{account}", "/v1/accounts/{account}/cancellation"
        blocked = refusals(422, model=Blocked.__name__)
        writes = (401, 403, 404, 409, 422)
        add(router, "GET", cancellation, self.show, refuses=(401, 403, 404))
        add(router, "POST", cancellation, self.request, refuses=writes, types=blocked, status=202)
        add(router, "DELETE", cancellation, self.withdraw, refuses=writes)
        add(router, "POST", f"{cancellation}/approval", self.approve, refuses=writes, types=blocked)
        add(router, "POST", f"{cancellation}/rejection", self.reject, refuses=writes)
        add(router, "POST", f"{account}/closure", self.close, refuses=writes)
        add(router, "GET", f"{account}/blocks", self.blocks, refuses=(401, 403, 404))
        add(router, "POST", f"{account}/blocks", self.block, refuses=writes, status=201)
        add(router, "DELETE", f"{account}/blocks/{{block}}", self.unblock, refuses=writes)
        return router

    async def show(self, account: Account, actor: Caller) -> ClosingView:
        """How far the cancellation of the account has come, and all that stands in its way now, with what to do."""
        return await self._view(actor, account)

    async def request(self, account: Account, actor: Caller, asked: ClosingAsked) -> ClosingView:
        """Ask for the cancellation of the account (6.2). It is refused for all reasons at once when there are any. Once
        it takes effect nothing can be recovered, and refunds are waived (6.5)."""
        await self._run(closing.request, self._desk, actor, account, asked.reason)
        return await self._view(actor, account)

    async def withdraw(self, account: Account, actor: Caller) -> ClosingView:
        """Take the request back, before it was approved."""
        await self._run(closing.withdraw, self._desk, actor, account)
        return await self._view(actor, account)

    async def approve(self, account: Account, operator: Operator) -> AccountView:
        """Approve a request, unless something stands in its way by now. The cancellation takes effect when the notice
        has reached every address of the account (6.4). For operators."""
        return AccountView.of(await self._run(closing.approve, self._desk, operator, account))

    async def reject(self, account: Account, operator: Operator, asked: WithReason) -> AccountView:
        """Reject a request; the owner is told why (6.3). For operators."""
        return AccountView.of(await self._run(closing.reject, self._desk, operator, account, asked.reason))

    async def close(self, account: Account, operator: Operator, asked: WithReason) -> AccountView:
        """Cancel an account whatever stands in its way (6.1); the owner is told why, and it takes effect then. For
        operators."""
        row = await self._run(closing.close_by_operator, self._desk, operator, account, asked.reason)
        return AccountView.of(row)

    async def blocks(self, account: Account, operator: Operator) -> list[Block]:
        """What operators have put in the way of a cancellation, lifted ones included. For operators."""
        found = await self._run(records.blocks, self._desk, operator, account)
        return [Block.of(row) for row in found]

    async def block(self, account: Account, operator: Operator, asked: BlockAsked) -> Block:
        """Keep an account from being cancelled, for a dispute, a balance and the like (6.2, 6.3). For operators."""
        kind = BlockKind(asked.kind)
        return Block.of(await self._run(closing.add_block, self._desk, operator, account, kind, asked.detail))

    async def unblock(self, account: Account, block: BlockNumber, operator: Operator) -> Block:
        """Lift a block. For operators."""
        return Block.of(await self._run(self._lift, operator, account, block))

    def _lift(self, operator: Actor, account: int, block: int) -> BlockRow:
        if all(row.block_id != block for row in records.blocks(self._desk, operator, account)):
            raise NotFound("there is no such block", subject=f"account {account}")
        return closing.lift_block(self._desk, operator, block)

    async def _view(self, actor: Actor, account: int) -> ClosingView:
        return ClosingView.of(account, await self._run(closing.progress, self._desk, actor, account))
