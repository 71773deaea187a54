"""Log-in with an account that somebody has elsewhere (OpenID Connect): to log in, to register, to link it.

The browser goes to the provider by a page of its own, not by the redirect of a form: so no policy has to name where
providers send people on the way. What is under way is in a cookie, sealed by the desk (`service.agreement.elsewhere`):
only the browser that began a log-in ends it.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request, Response

from service.agreement import elsewhere, versions
from service.agreement.elsewhere import NEWCOMER_MS, Begun
from service.agreement.errors import Unauthorized
from service.agreement.openid.provider import ProviderAway
from service.agreement.texts import MAX_NAME_CHARS
from service.api.door import Client
from service.api.models.elsewhere import MAX_CODE_CHARS
from service.pages import cookies
from service.pages.door import Owner, person
from service.pages.entrance import OWNERS_HOME
from service.pages.forms import Form, own_path
from service.pages.registering import MAX_ADDRESS_CHARS
from service.pages.site import BACK, LOG_IN, Part
from storage.errors import CallerError

NEWCOMERS = "/register/elsewhere"
MAX_ANSWER_CHARS = 2000
"""Of `state` and `iss`, as the API takes them."""
_NOTHING = Form({})


class Elsewhere(Part):
    """The handlers."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.post(router, "/log-in/elsewhere", self.begin)
        site.get(router, BACK, self.back)
        site.get(router, NEWCOMERS, self.ask)
        site.post(router, NEWCOMERS, self.register)
        site.post(router, "/account/elsewhere", self.begin_link)
        site.post(router, "/account/elsewhere/remove", self.unlink)
        return router

    # --- the way there ----------------------------------------------------------------------------------------

    async def begin(self, request: Request, client: Client) -> Response:
        then = ""
        try:
            form = await self._site.form(request)
            then = own_path(form["next"])
            begun = await self._begun(request, form["provider"], client)
        except (CallerError, ProviderAway) as error:
            return await self._site.again(request, error, "log_in", login="", then=then)
        return self._going(request, form["provider"], begun, then)

    async def begin_link(self, request: Request, person: Owner, client: Client) -> Response:
        """For the account of who is logged in."""
        form = await self._site.form(request)
        whose = {"account": person.account, "actor": person.actor}
        return self._going(
            request, form["provider"], await self._begun(request, form["provider"], client, **whose), ""
        )

    async def _begun(self, request: Request, provider: str, client: str, **whose: Any) -> Begun:
        providers = self._site.api.services.providers
        providers.named(provider)  # a made-up name has no share of the threads
        back = self._site.way_back(request)
        begin = partial(elsewhere.begin, self._desk, providers, provider, back, client, **whose)
        return await self._calls.ask(provider, begin)

    def _going(self, request: Request, provider: str, begun: Begun, then: str) -> Response:
        response = self._site.page(request, "going", provider=provider, url=begun.url)
        lasts_s = (begun.expires_ms - self._desk.now_ms()) // 1000
        self._keep(request, response, f"{begun.attempt}:{quote(then, safe='')}", lasts_s)
        return response

    def _keep(self, request: Request, response: Response, text: str, lasts_s: int) -> None:
        self._site.set_cookie(request, response, cookies.ELSEWHERE, text, lasts_s)

    # --- the way back -----------------------------------------------------------------------------------------

    async def back(self, request: Request, client: Client) -> Response:
        """With what the provider says. Whoever is sent here without having begun anything changes nothing."""
        kept, _, then = self._site.cookie(request, cookies.ELSEWHERE).partition(":")
        then = own_path(unquote(then))
        try:
            answer = _answer(request)
            if elsewhere.account_to_link(self._desk, kept) is not None:
                return await self._linked(request, kept, answer, client)
            done = await self._ended(partial(elsewhere.finish, self._desk), kept, answer, client)
        except (CallerError, ProviderAway) as error:
            if getattr(error, "code", "") == "session_ended":  # to link it one has to be logged in
                raise
            return await self._site.again(request, error, "log_in", login="", then=then)
        if done.session is None:
            response = self._site.to(NEWCOMERS)
            self._keep(request, response, done.newcomer, NEWCOMER_MS // 1000)
            return response
        return self._entered(request, done.session, then)

    async def _linked(
        self, request: Request, kept: str, answer: tuple[str, str, str | None], client: str
    ) -> Response:
        who = await person(request)
        link = partial(elsewhere.link, self._desk)
        await self._ended(link, kept, answer, client, who.actor, who.account)
        response = self._site.to("/account", "log_in_linked")
        self._keep(request, response, "", 0)
        return response

    async def _ended(
        self, end: partial[Any], kept: str, answer: tuple[str, str, str | None], client: str, *whose: Any
    ) -> Any:
        """Ask the provider about its answer, in a thread."""
        providers = self._site.api.services.providers
        name = elsewhere.begun_at(self._desk, providers, kept)
        return await self._calls.ask(name, partial(end, providers, *whose, kept, *answer, client))

    def _entered(self, request: Request, session: tuple[str, Any], then: str = "") -> Response:
        token, row = session
        response = self._site.to(then or OWNERS_HOME)
        self._site.enter(request, response, token, row.expires_ms)
        self._keep(request, response, "", 0)
        return response

    # --- a newcomer -------------------------------------------------------------------------------------------

    async def ask(self, request: Request) -> Response:
        try:
            return self._site.page(
                request, "register_elsewhere", **await self._registration(request, _NOTHING)
            )
        except CallerError as error:
            return await self._site.again(request, error, "log_in", login="", then="")

    async def _registration(self, request: Request, form: Form) -> dict[str, Any]:
        newcomer = elsewhere.newcomer_of(self._desk, self._site.cookie(request, cookies.ELSEWHERE))
        version = await self._run(versions.newest, self._desk)
        entered = {name: form[name] for name in ("email", "mobile", "name")}
        return {"version": version, "newcomer": newcomer, **entered}

    async def register(self, request: Request, client: Client) -> Response:
        """The account is active at once where the provider's word for the address is believed."""
        site, form = self._site, _NOTHING
        try:
            form = await site.form(request)
            row, session = await self._run(
                elsewhere.register,
                self._desk,
                site.cookie(request, cookies.ELSEWHERE),
                accepts_version=form.whole("version") if form.ticked("accepts") else 0,
                name=form.text("name", MAX_NAME_CHARS),
                email=form.text("email", MAX_ADDRESS_CHARS) or None,
                mobile=form.text("mobile", MAX_ADDRESS_CHARS) or None,
                client=client,
            )
        except CallerError as error:
            if error.code == "log_in_expired":
                return await site.again(request, error, "log_in", login="", then="")
            shown = await self._registration(request, form)
            return await site.again(request, error, "register_elsewhere", **shown)
        if session is not None:
            return self._entered(request, session)
        response = site.to("/activate", account=row.account)
        self._keep(request, response, "", 0)
        return response

    # --- one that is linked -----------------------------------------------------------------------------------

    async def unlink(self, request: Request, person: Owner) -> Response:
        """All log-ins of the account end."""
        form = await self._site.form(request)
        await self._run(elsewhere.unlink, self._desk, person.actor, person.account, form.text("provider"))
        response = self._site.to(LOG_IN, "log_in_unlinked")
        self._site.set_cookie(request, response, cookies.LOG_IN, "", 0)
        return response


def _answer(request: Request) -> tuple[str, str, str | None]:
    """`state`, `code` and `iss` of what came back. Raises Unauthorized `not_let_in`."""
    query = request.query_params
    state, code, issuer = query.get("state", ""), query.get("code", ""), query.get("iss")
    if not code or len(code) > MAX_CODE_CHARS or max(len(state), len(issuer or "")) > MAX_ANSWER_CHARS:
        raise Unauthorized("the provider let nobody in; begin again", code="not_let_in")
    return state, code, issuer
