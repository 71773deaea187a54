"""Becoming a user: registration, activation, and a new password for who lost the old one (agreement 1.2, 2.1)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from service.agreement import registration, sessions
from service.api.door import Account, Client
from service.api.models.accounts import AccountView, ActivationCode, Registration, Reset, ResetRequest
from service.api.problems import NO_STORE, PrivateJSON
from service.api.routing import add
from service.api.services import Api


class Registrations:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._desk = api.desk
        self._calls = api.calls

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["registration"], default_response_class=PrivateJSON)
        account = "/v1/accounts/{account}"
        add(router, "POST", "/v1/accounts", self.register, refuses=(422, 429), status=201)
        sent: dict[str, Any] = {"status": 202, "response_class": Response}
        add(router, "POST", f"{account}/activation", self.activate, refuses=(404, 409, 422, 429))
        add(router, "POST", f"{account}/activation-code", self.resend, refuses=(404, 409, 429), **sent)
        add(router, "POST", "/v1/password-resets", self.request_reset, refuses=(429,), **sent)
        add(router, "PUT", "/v1/password-resets", self.reset, refuses=(422, 429), status=204)
        return router

    async def register(self, asked: Registration, client: Client, response: Response) -> AccountView:
        """Register an account. A code of its own is sent to each address: activate with one of them. The account can't
        record, nor log in, before, and has no address. The answer does not tell whether an address is taken: its owner
        is told."""
        row = await self._calls.hash(
            registration.register,
            self._desk,
            email=asked.email,
            mobile=asked.mobile,
            password=asked.password,
            name=asked.name,
            accepts_version=asked.accepts_version,
            client=client,
        )
        response.headers["Location"] = f"/v1/accounts/{row.account}"
        return AccountView.of(row)

    async def activate(self, account: Account, asked: ActivationCode, client: Client) -> AccountView:
        """Activate an account with the code that was sent to one of its addresses, which it has from then on. Bind
        another one with the code that was sent there: `POST /v1/accounts/{account}/addresses/{kind}`."""
        return AccountView.of(
            await self._calls.run(registration.activate, self._desk, account, asked.code, client)
        )

    async def resend(self, account: Account, client: Client) -> Response:
        """Send the activation codes again: the same ones as long as they are good. Each is sent at most
        every few minutes; a request before that changes nothing, since what was sent is good."""
        await self._calls.run(registration.resend_code, self._desk, account, client)
        return Response(status_code=202, headers=NO_STORE)

    async def request_reset(self, asked: ResetRequest, client: Client) -> Response:
        """Send a code with which a new password can be set, if there is such an account: the answer does not tell."""
        await self._calls.run(sessions.request_reset, self._desk, asked.login, client)
        return Response(status_code=202, headers=NO_STORE)

    async def reset(self, asked: Reset, client: Client) -> Response:
        """Set a new password with the code that was sent. All log-ins of the account end."""
        await self._calls.hash(
            sessions.reset_password, self._desk, asked.login, asked.code, asked.password, client
        )
        return Response(status_code=204, headers=NO_STORE)
