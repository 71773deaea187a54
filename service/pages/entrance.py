"""The front page, log-in and log-out."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter, Request, Response

from service.agreement import sessions
from service.agreement.bearer import OPERATOR_PREFIX, OWNER_PREFIX
from service.agreement.errors import Unauthorized
from service.agreement.sessions import MAX_LOGIN_CHARS
from service.api.door import Client
from service.pages import cookies
from service.pages.awhile import Kept
from service.pages.forms import own_path
from service.pages.site import LOG_IN, Part, Site
from storage.errors import CallerError
from storage.rows.accounts import OPERATOR_ACCOUNT

OWNERS_HOME = "/cameras"
OPERATORS_HOME = "/operator"
MAX_TOKEN_CHARS = 100
KEPT_S = 5.0
"""However many strangers open the front page, the catalog is asked once in this time whether anybody is here."""


class Entrance(Part):
    """The handlers."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._has_owners = False
        self._new = Kept(KEPT_S, self._is_new)

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/", self.front)
        site.get(router, LOG_IN, self.ask)
        site.post(router, LOG_IN, self.log_in)
        site.get(router, "/log-in/operator", self.ask_operator)
        site.post(router, "/log-in/operator", self.log_in_operator)
        site.post(router, "/log-out", self.log_out)
        return router

    async def front(self, request: Request) -> Response:
        """Whoever is logged in goes on to his own pages."""
        token = self._site.token(request)
        if token.startswith(OWNER_PREFIX):
            return self._site.to(OWNERS_HOME)
        if token.startswith(OPERATOR_PREFIX):
            return self._site.to(OPERATORS_HOME)
        return self._site.page(request, "front", is_new=await self._new.get())

    async def _is_new(self) -> bool:
        return not self._has_owners and await self._run(self._look)

    def _look(self) -> bool:
        """Whether nobody has an account yet. Once somebody has, that is not asked again."""
        with self._desk.reading() as books:
            self._has_owners = bool(books.accounts(after=OPERATOR_ACCOUNT, limit=1))
        return not self._has_owners

    async def ask(self, request: Request) -> Response:
        then = own_path(request.query_params.get("next", ""))
        return self._site.page(request, "log_in", login="", then=then)

    async def log_in(self, request: Request, client: Client) -> Response:
        site = self._site
        login, then = "", ""
        try:
            form = await site.form(request)
            then = own_path(form["next"])
            login = form.text("login", MAX_LOGIN_CHARS)
            token, row = await site.calls.hash(sessions.log_in, site.desk, login, form["password"], client)
        except CallerError as error:
            account = login if error.code == "not_activated" and login.isdigit() else ""
            return await site.again(request, error, "log_in", login=login, then=then, account=account)
        response = site.to(then or OWNERS_HOME)
        site.enter(request, response, token, row.expires_ms)
        return response

    async def ask_operator(self, request: Request) -> Response:
        return self._site.page(request, "log_in_operator")

    async def log_in_operator(self, request: Request) -> Response:
        """With a token of `clipkeep operator token`. It is looked up by its hash: there is nothing to guess."""
        site = self._site
        try:
            form = await site.form(request)
            token = form.text("token", MAX_TOKEN_CHARS)
            if not token.startswith(OPERATOR_PREFIX):
                raise Unauthorized("it begins with cko_", code="session_ended")
            await site.calls.run(sessions.who, site.desk, token)
        except CallerError as error:
            return await site.again(request, error, "log_in_operator")
        response = site.to(OPERATORS_HOME)
        site.enter(request, response, token, None)
        return response

    async def log_out(self, request: Request) -> Response:
        """An owner's log-in ends here and everywhere. An operator's token goes on, for programs may use it."""
        site = self._site
        token = site.token(request)
        await site.form(request)
        response = site.to("/", "logged_out")
        site.set_cookie(request, response, cookies.LOG_IN, "", 0)
        if token.startswith(OWNER_PREFIX):
            with suppress(Unauthorized):  # it had ended by itself
                await site.calls.run(sessions.log_out, site.desk, token)
        return response
