"""Log-in and log-out (agreement 1.3)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from service.agreement import sessions
from service.api.door import Caller, Client, token
from service.api.models.accounts import LogIn, Session
from service.api.problems import NO_STORE, PrivateJSON
from service.api.routing import add
from service.api.services import Api


class Sessions:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._calls = api.calls

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["sessions"], default_response_class=PrivateJSON)
        add(router, "POST", "/v1/sessions", self.log_in, refuses=(401, 403, 429), status=201)
        add(router, "DELETE", "/v1/sessions/current", self.log_out, refuses=(401, 403), status=204)
        return router

    async def log_in(self, asked: LogIn, client: Client) -> Session:
        """Log in with an account number, an e-mail address or a mobile number. Repeated failures slow down, and lock
        for a while, per account and per client."""
        token, row = await self._calls.hash(sessions.log_in, self._desk, asked.login, asked.password, client)
        return Session(account=row.account, token=token, expires_ms=row.expires_ms)

    async def log_out(self, actor: Caller, token: Annotated[str, Depends(token)]) -> Response:
        """End this log-in: its token can't be used any more."""
        await self._calls.run(sessions.log_out, self._desk, token)
        return Response(status_code=204, headers=NO_STORE)
