"""Devices of an account, and their tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.agreement import devices, kept, naming
from service.agreement.naming import MAX_LABEL_CHARS
from service.api.door import Account, Caller, Device
from service.api.models.accounts import WithReason
from service.api.models.base import Page
from service.api.models.devices import (
    AccountKept,
    DeviceAsked,
    DeviceNaming,
    DeviceToken,
    DeviceView,
    KeptView,
    NewDevice,
    Termination,
    ViewerToken,
    ViewerTokenAsked,
)
from service.api.paging import DEFAULT_PAGE_ROWS, After, Rows, page_of
from service.api.problems import PrivateJSON
from service.api.routing import add
from service.api.services import Api


class Devices:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["devices"], default_response_class=PrivateJSON)
        of_account, device = "/v1/accounts/{account}/devices", "/v1/devices/{n}"
        add(router, "GET", of_account, self.listed, refuses=(401, 403, 404))
        add(router, "POST", of_account, self.add, refuses=(401, 403, 404, 409, 422, 429), status=201)
        add(router, "GET", device, self.show, refuses=(401, 403, 404))
        add(router, "PATCH", device, self.rename, refuses=(401, 403, 404, 422))
        add(router, "GET", f"{device}/kept", self.kept, refuses=(401, 403, 404))
        add(router, "GET", "/v1/accounts/{account}/kept", self.kept_of_account, refuses=(401, 403, 404))
        add(router, "GET", f"{device}/token", self.token, refuses=(401, 403, 404))
        add(router, "POST", f"{device}/token", self.new_token, refuses=(401, 403, 404, 422))
        add(
            router,
            "POST",
            f"{device}/viewer-tokens",
            self.viewer_token,
            refuses=(401, 403, 404, 422),
            status=201,
        )
        add(router, "POST", f"{device}/termination", self.terminate, refuses=(401, 403, 404, 409, 422))
        return router

    async def listed(
        self,
        account: Account,
        actor: Caller,
        after: After = 0,
        limit: Rows = DEFAULT_PAGE_ROWS,
        name: Annotated[
            str | None,
            Query(min_length=1, max_length=MAX_LABEL_CHARS, description="a part of its name or label"),
        ] = None,
    ) -> Page[DeviceView]:
        """The devices of an account, in order of number, each with its name, when it was last seen, and what it was
        refused. With `name` those alone that have this text in their name or label; a page of these may be empty and
        not the last."""
        if name is not None:
            some, following = await self._run(
                naming.named, self._desk, actor, account, name, after=after, limit=limit
            )
            return Page(items=[DeviceView.of(standing) for standing in some], next=following)
        found = await self._run(devices.devices_of, self._desk, actor, account, after=after, limit=limit + 1)
        return page_of(found, limit, lambda standing: standing.facts.device, DeviceView.of)

    async def add(self, account: Account, actor: Caller, response: Response, asked: DeviceAsked) -> NewDevice:
        """A new device, without a plan; by its `serial` where the service asks for that. It keeps its number and stays
        with its account: devices and plans can't be transferred (2.2, 7.2)."""
        facts = await self._run(devices.add_device, self._desk, actor, account, asked.serial)
        token = devices.token_of(self._desk, facts)
        response.headers["Location"] = f"/v1/devices/{facts.device}"
        return NewDevice(device=facts.device, token=token)

    async def show(self, n: Device, actor: Caller) -> DeviceView:
        """A device: what it may do now, and its plans."""
        return DeviceView.of(await self._run(devices.show, self._desk, actor, n))

    async def rename(self, n: Device, actor: Caller, asked: DeviceNaming) -> DeviceView:
        """What the device is called from now on; neither changes what it may do."""
        return DeviceView.of(
            await self._run(naming.rename, self._desk, actor, n, name=asked.name, label=asked.label)
        )

    async def kept(self, n: Device, actor: Caller) -> KeptView:
        """How much is kept of the device, by the day on which it was recorded (UTC). Counted in a quarter of a
        second at most, and remembered: a day may be a minute old, an earlier one an hour."""
        return KeptView.of(n, await self._run(kept.of_device, self._desk, actor, n))

    async def kept_of_account(
        self, account: Account, actor: Caller, after: After = 0, limit: Rows = DEFAULT_PAGE_ROWS
    ) -> AccountKept:
        """How much is kept of the account's devices: of each, and of all of this page by day. As for a device."""
        found = await self._run(kept.of_account, self._desk, actor, account, after=after, limit=limit)
        return AccountKept.of(found, limit)

    async def token(self, n: Device, actor: Caller) -> DeviceToken:
        """The device's token: what the camera sends when it uploads."""
        return DeviceToken(device=n, token=await self._run(devices.token, self._desk, actor, n))

    async def new_token(self, n: Device, actor: Caller, asked: WithReason) -> DeviceToken:
        """A new token for the camera. All tokens of the device from before, viewers' too, are void at once."""
        token = await self._run(devices.new_token, self._desk, actor, n, why=asked.reason)
        return DeviceToken(device=n, token=token)

    async def viewer_token(self, n: Device, actor: Caller, asked: ViewerTokenAsked) -> ViewerToken:
        """A token with which a person or a player may watch this device's recordings."""
        token, expires_s = await self._run(
            devices.viewer_token, self._desk, actor, n, hours=float(asked.hours)
        )
        return ViewerToken(device=n, token=token, expires_s=expires_s)

    async def terminate(self, n: Device, actor: Caller, asked: Termination) -> DeviceView:
        """Deny a device for good, at once. With `erase` its recordings can't be read by anyone from now on; without,
        that happens after the grace of a lapse. Nothing is refunded: an owner cancels a paid plan first."""
        standing, _ = await self._run(
            devices.terminate, self._desk, actor, n, why=asked.reason, erase=asked.erase
        )
        return DeviceView.of(standing)
