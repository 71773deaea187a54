"""Links to a range of one device."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from service.agreement import shares
from service.agreement.texts import MAX_REASON_CHARS
from service.api.door import Caller, Device
from service.api.models.base import MAX_ROW
from service.api.models.shares import NewShare, ShareAsked, Shares, ShareView
from service.api.numbers import DIGITS
from service.api.problems import NO_STORE, PrivateJSON
from service.api.routing import add
from service.api.services import Api

Share = Annotated[int, DIGITS, Path(ge=1, le=MAX_ROW, description="number of the link")]
Reason = Annotated[str, Query(max_length=MAX_REASON_CHARS, description="kept in the history")]


class ShareLinks:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["share links"], default_response_class=PrivateJSON)
        of_device = "/v1/devices/{n}/shares"
        add(router, "GET", of_device, self.listed, refuses=(401, 403, 404))
        add(router, "POST", of_device, self.make, refuses=(401, 403, 404, 409, 422), status=201)
        add(router, "DELETE", f"{of_device}/{{share}}", self.revoke, refuses=(401, 403, 404, 422), status=204)
        return router

    async def listed(self, n: Device, actor: Caller) -> Shares:
        """The links of a device by number, with how often each was opened. Those that are over are listed for a month,
        unless room is needed; revoked ones are not."""
        found = await self._run(shares.listed, self._desk, actor, n)
        return Shares(items=[ShareView.of(row, state) for row, state in found])

    async def make(self, n: Device, actor: Caller, asked: ShareAsked) -> NewShare:
        """A link to a range of this device's recordings. Whoever has its token reads what begins in that range
        (`recordings`, `playlist.m3u8`, chunks, exports), and nothing else, nothing live: until it expires, is revoked,
        or the tokens of viewers end; and never longer than the recordings are kept."""
        row, token = await self._run(
            shares.create, self._desk, actor, n, asked.from_ms, asked.to_ms, hours=float(asked.hours)
        )
        return NewShare(token=token, **ShareView.of(row, "live").model_dump())

    async def revoke(self, n: Device, share: Share, actor: Caller, reason: Reason = "") -> Response:
        """End a link: within two seconds nobody can read anything by it."""
        await self._run(shares.revoke, self._desk, actor, n, share, why=reason)
        return Response(status_code=204, headers=NO_STORE)
