"""Becoming a user, and coming back without the password (agreement 1.2, 2.1)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.agreement import registration, sessions, versions
from service.agreement.sessions import MAX_LOGIN_CHARS
from service.agreement.texts import MAX_NAME_CHARS
from service.api.door import Client
from service.pages.forms import Form
from service.pages.site import LOG_IN, Part
from storage.errors import CallerError

MAX_ADDRESS_CHARS = 320
MAX_CODE_CHARS = 40
_NOTHING = Form({})


class Registering(Part):
    """The handlers."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/register", self.ask)
        site.post(router, "/register", self.register)
        site.get(router, "/activate", self.ask_code)
        site.post(router, "/activate", self.activate)
        site.post(router, "/activate/again", self.send_again)
        site.get(router, "/password", self.ask_login)
        site.post(router, "/password", self.send_reset)
        site.get(router, "/password/new", self.ask_password)
        site.post(router, "/password/new", self.reset)
        return router

    # --- a new account ----------------------------------------------------------------------------------------

    async def ask(self, request: Request) -> Response:
        return self._site.page(request, "register", **await self._registration(_NOTHING))

    async def register(self, request: Request, client: Client) -> Response:
        """A code is on its way then, to each address."""
        site, form = self._site, _NOTHING
        try:
            form = await site.form(request)
            row = await site.calls.hash(
                registration.register,
                site.desk,
                email=form.text("email", MAX_ADDRESS_CHARS) or None,
                mobile=form.text("mobile", MAX_ADDRESS_CHARS) or None,
                password=form["password"],
                name=form.text("name", MAX_NAME_CHARS),
                accepts_version=form.whole("version") if form.ticked("accepts") else 0,
                client=client,
            )
        except CallerError as error:
            return await site.again(request, error, "register", **await self._registration(form))
        return site.to("/activate", account=row.account)

    async def _registration(self, form: Form) -> dict[str, Any]:
        version = await self._site.calls.run(versions.newest, self._site.desk)
        return {"version": version, **{name: form[name] for name in ("email", "mobile", "name")}}

    async def ask_code(self, request: Request) -> Response:
        account = request.query_params.get("account", "")
        return self._site.page(request, "activate", account=account if account.isdecimal() else "")

    async def activate(self, request: Request, client: Client) -> Response:
        site, form = self._site, _NOTHING
        try:
            form = await site.form(request)
            code = form.text("code", MAX_CODE_CHARS)
            await site.calls.run(registration.activate, site.desk, form.whole("account"), code, client)
        except CallerError as error:
            return await site.again(request, error, "activate", account=form["account"])
        return site.to(LOG_IN, "activated")

    async def send_again(self, request: Request, client: Client) -> Response:
        site, form = self._site, _NOTHING
        try:
            form = await site.form(request)
            account = form.whole("account")
            await site.calls.run(registration.resend_code, site.desk, account, client)
        except CallerError as error:
            return await site.again(request, error, "activate", account=form["account"])
        return site.to("/activate", "code_sent", account=account)

    # --- a forgotten password ---------------------------------------------------------------------------------

    async def ask_login(self, request: Request) -> Response:
        return self._site.page(request, "password", login="")

    async def send_reset(self, request: Request, client: Client) -> Response:
        """The answer does not tell whether there is such an account."""
        site, form = self._site, _NOTHING
        try:
            form = await site.form(request)
            login = form.text("login", MAX_LOGIN_CHARS)
            await site.calls.run(sessions.request_reset, site.desk, login, client)
        except CallerError as error:
            return await site.again(request, error, "password", login=form["login"])
        return site.to("/password/new", "code_sent")

    async def ask_password(self, request: Request) -> Response:
        return self._site.page(request, "password_new", login="")

    async def reset(self, request: Request, client: Client) -> Response:
        site, form = self._site, _NOTHING
        try:
            form = await site.form(request)
            login, code = form.text("login", MAX_LOGIN_CHARS), form.text("code", MAX_CODE_CHARS)
            await site.calls.hash(sessions.reset_password, site.desk, login, code, form["password"], client)
        except CallerError as error:
            return await site.again(request, error, "password_new", login=form["login"])
        return site.to(LOG_IN, "password_set")
