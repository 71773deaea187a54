"""Log-in from elsewhere (agreement 1.3): at providers of OpenID Connect that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Response

from service.agreement import elsewhere
from service.agreement.desk import Actor
from service.api.door import Account, Caller, Client
from service.api.models.accounts import AccountView, Session
from service.api.models.elsewhere import (
    Identity,
    LoggedIn,
    LogInAsked,
    LogInBegun,
    NewcomerAsked,
    NewcomerView,
    ProviderAnswer,
    ProviderView,
    Registered,
)
from service.api.problems import NO_STORE, PrivateJSON
from service.api.routing import add
from service.api.services import Api
from storage.rows.accounts import SessionRow

T = TypeVar("T")
ProviderName = Annotated[str, Path(min_length=1, max_length=32, description="name of a provider")]


class LogInsElsewhere:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._providers = api.services.providers
        self._calls = api.calls

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["log-in from elsewhere"], default_response_class=PrivateJSON)
        log_ins, account = "/v1/log-ins", "/v1/accounts/{account}"
        own = (401, 403, 404, 409, 422, 429)
        add(router, "GET", "/v1/providers", self.providers)
        add(router, "POST", log_ins, self.begin, refuses=(404, 422, 429), status=201)
        add(router, "POST", f"{log_ins}/completion", self.finish, refuses=(401, 403, 404, 429))
        add(
            router,
            "POST",
            f"{log_ins}/registration",
            self.register,
            refuses=(401, 403, 409, 422, 429),
            status=201,
        )
        add(router, "GET", f"{account}/identities", self.listed, refuses=(401, 403, 404))
        add(router, "POST", f"{account}/log-ins", self.begin_link, refuses=own, status=201)
        add(router, "POST", f"{account}/identities", self.link, refuses=own, status=201)
        add(
            router,
            "DELETE",
            f"{account}/identities/{{provider}}",
            self.unlink,
            refuses=(401, 403, 404, 409),
            status=204,
        )
        return router

    async def providers(self) -> list[ProviderView]:
        """Where one may log in, for anybody to read."""
        return [
            ProviderView(provider=name, issuer=one.settings.issuer)
            for name, one in self._providers.by_name.items()
        ]

    async def begin(self, asked: LogInAsked, client: Client) -> LogInBegun:
        """Begin a log-in at a provider: send the browser to `url`, and keep `log_in` until it is back."""
        done = await self._begin(asked, client)
        return LogInBegun(url=done.url, log_in=done.attempt, expires_ms=done.expires_ms)

    async def finish(self, asked: ProviderAnswer, client: Client) -> LoggedIn:
        """End it with what came back: a session for who has linked this log-in to an account; else a newcomer, who may
        register, or log in with a password and link it."""
        done = await self._end(elsewhere.finish, asked, client)
        newcomer = NewcomerView(
            newcomer=done.newcomer, email=done.email, proved=done.proved, expires_ms=done.expires_ms
        )
        return LoggedIn(session=_session(done.session), newcomer=newcomer if done.newcomer else None)

    async def register(self, asked: NewcomerAsked, client: Client) -> Registered:
        """An account for a newcomer, without a password. It is active at once where the provider's word for the address
        is believed; else it is activated with the code that is sent, as any other. A password may be set later, with a
        code (`POST /v1/password-resets`)."""
        row, session = await self._calls.run(
            elsewhere.register,
            self._desk,
            asked.newcomer,
            accepts_version=asked.accepts_version,
            name=asked.name,
            email=asked.email,
            mobile=asked.mobile,
            client=client,
        )
        return Registered(account=AccountView.of(row), session=_session(session))

    async def listed(self, account: Account, actor: Caller) -> list[Identity]:
        """The log-ins from elsewhere that are linked to the account."""
        found = await self._calls.run(elsewhere.listed, self._desk, actor, account)
        return [Identity.of(row) for row in found]

    async def begin_link(
        self, account: Account, actor: Caller, asked: LogInAsked, client: Client
    ) -> LogInBegun:
        """Begin to link a log-in from elsewhere to the account: for its owner, who is logged in to it."""
        done = await self._begin(asked, client, account=account, actor=actor)
        return LogInBegun(url=done.url, log_in=done.attempt, expires_ms=done.expires_ms)

    async def link(self, account: Account, actor: Caller, asked: ProviderAnswer, client: Client) -> Identity:
        """Link it, with what came back. One of each provider; the account's addresses are told."""
        return Identity.of(await self._end(elsewhere.link, asked, client, actor, account))

    async def unlink(self, account: Account, actor: Caller, provider: ProviderName) -> Response:
        """Take a log-in from elsewhere away. All log-ins of the account end, this one too."""
        await self._calls.run(elsewhere.unlink, self._desk, actor, account, provider)
        return Response(status_code=204, headers=NO_STORE)

    async def _begin(self, asked: LogInAsked, client: str, **whose: Any) -> elsewhere.Begun:
        self._providers.named(asked.provider)  # a made-up name has no share of the threads
        return await self._calls.ask(
            asked.provider,
            partial(
                elsewhere.begin,
                self._desk,
                self._providers,
                asked.provider,
                asked.redirect_uri,
                client,
                **whose,
            ),
        )

    async def _end(self, how: Callable[..., T], asked: ProviderAnswer, client: str, *whose: Actor | int) -> T:
        answer = asked.log_in, asked.state, asked.code, asked.iss
        return await self._calls.ask(
            elsewhere.begun_at(self._desk, self._providers, asked.log_in),
            partial(how, self._desk, self._providers, *whose, *answer, client),
        )


def _session(found: tuple[str, SessionRow] | None) -> Session | None:
    if found is None:
        return None
    token, row = found
    return Session(account=row.account, token=token, expires_ms=row.expires_ms)
