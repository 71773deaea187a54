"""An owner's own account: data, addresses, password, consents, history, and all of it as a file."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request, Response

from service.agreement import consents, methods, my_data, records, registration, sessions
from service.agreement.errors import Unprocessable
from service.agreement.texts import MAX_NAME_CHARS
from service.api.door import Client
from service.api.exports import ExportNumber, Exports
from service.pages.door import Owner
from service.pages.registering import MAX_ADDRESS_CHARS, MAX_CODE_CHARS
from service.pages.site import Person, Site
from storage.errors import CallerError

PAGE_ROWS = 50
KINDS = ("email", "mobile")


class Account:
    """The handlers."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._desk = site.desk
        self._calls = site.calls
        self._run = site.calls.run
        self._exports = Exports(site.api)

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/account", self.show)
        site.post(router, "/account/name", self.rename)
        site.post(router, "/account/address", self.ask_address)
        site.post(router, "/account/address/confirm", self.confirm_address)
        site.post(router, "/account/password", self.password)
        site.post(router, "/account/consent", self.consent)
        site.post(router, "/account/exports", self.ask_export)
        site.get(router, "/account/exports/{export}", self.export)
        site.get(router, "/account/history", self.history)
        site.get(router, "/account/methods", self.methods)
        site.post(router, "/account/methods", self.add_method)
        site.post(router, "/account/methods/remove", self.remove_method)
        site.get(router, "/payments", self.payments)
        return router

    async def show(self, request: Request, person: Owner) -> Response:
        return self._site.page(request, "account", **await self._run(self._shown, person))

    def _shown(self, person: Person) -> dict[str, Any]:
        desk, actor, account = self._desk, person.actor, person.account
        return {
            "row": records.account(desk, actor, account),
            "accepted": records.acceptances(desk, actor, account),
            "consents": consents.said(desk, actor, account),
            "exports": my_data.listed(desk, actor, account),
        }

    async def _again(self, request: Request, person: Person, error: Exception) -> Response:
        return await self._site.again(request, error, "account", **await self._run(self._shown, person))

    # --- who it is --------------------------------------------------------------------------------------------

    async def rename(self, request: Request, person: Owner) -> Response:
        try:
            form = await self._site.form(request)
            name = form.text("name", MAX_NAME_CHARS)
            await self._run(registration.update, self._desk, person.actor, person.account, name=name)
        except CallerError as error:
            return await self._again(request, person, error)
        return self._site.to("/account", "saved")

    async def ask_address(self, request: Request, person: Owner) -> Response:
        """A code goes to the new address. The account has the one before until that comes back."""
        try:
            form = await self._site.form(request)
            kind, address = _kind(form["kind"]), form.text("address", MAX_ADDRESS_CHARS)
            await self._run(registration.update, self._desk, person.actor, person.account, **{kind: address})
        except CallerError as error:
            return await self._again(request, person, error)
        return self._site.to("/account", "address_asked" if address else "saved")

    async def confirm_address(self, request: Request, person: Owner) -> Response:
        try:
            form = await self._site.form(request)
            kind, code = _kind(form["kind"]), form.text("code", MAX_CODE_CHARS)
            await self._run(
                registration.confirm_address, self._desk, person.account, kind, code, actor=person.actor
            )
        except CallerError as error:
            return await self._again(request, person, error)
        return self._site.to("/account", "address_changed")

    async def password(self, request: Request, person: Owner, client: Client) -> Response:
        """All log-ins end, this one too."""
        try:
            form = await self._site.form(request)
            await self._calls.hash(
                sessions.change_password,
                self._desk,
                person.actor,
                person.account,
                form["old"],
                form["new"],
                client,
            )
        except CallerError as error:
            return await self._again(request, person, error)
        return self._site.to("/log-in", "password_set")

    async def consent(self, request: Request, person: Owner) -> Response:
        try:
            form = await self._site.form(request)
            subject, given = form.text("subject"), form["given"] == "yes"
            await self._run(consents.say, self._desk, person.actor, person.account, subject, given)
        except CallerError as error:
            return await self._again(request, person, error)
        return self._site.to("/account", "consent_said")

    # --- what is on file --------------------------------------------------------------------------------------

    async def ask_export(self, request: Request, person: Owner) -> Response:
        try:
            await self._site.form(request)
            await self._run(my_data.ask, self._desk, person.actor, person.account)
        except CallerError as error:
            return await self._again(request, person, error)
        return self._site.to("/account", "export_asked")

    async def export(self, person: Owner, export: ExportNumber) -> Response:
        return await self._exports.file(person.account, export, person.actor)

    async def history(self, request: Request, person: Owner) -> Response:
        rows = await self._run(
            records.events,
            self._desk,
            person.actor,
            person.account,
            after=_after(request),
            limit=PAGE_ROWS + 1,
        )
        more = rows[PAGE_ROWS - 1].event_id if len(rows) > PAGE_ROWS else None
        return self._site.page(request, "history", events=rows[:PAGE_ROWS], more=more)

    # --- money ------------------------------------------------------------------------------------------------

    async def payments(self, request: Request, person: Owner) -> Response:
        rows = await self._run(
            records.payments,
            self._desk,
            person.actor,
            person.account,
            after=_after(request),
            limit=PAGE_ROWS + 1,
        )
        more = rows[PAGE_ROWS - 1].payment_id if len(rows) > PAGE_ROWS else None
        return self._site.page(request, "payments", payments=rows[:PAGE_ROWS], more=more)

    async def methods(self, request: Request, person: Owner) -> Response:
        return self._site.page(request, "methods", **await self._run(self._methods, person))

    def _methods(self, person: Person) -> dict[str, Any]:
        rows = methods.methods_of(self._desk, person.actor, person.account)
        return {"methods": rows, "keeps_methods": self._desk.gateway.keeps_methods}

    async def add_method(self, request: Request, person: Owner) -> Response:
        """Where the gateway wants something entered, the page that comes next has the link."""
        try:
            await self._site.form(request)
            reference = f"method-{self._desk.random_bytes(20).hex()}"
            await self._calls.pay(methods.set_up, self._desk, person.actor, person.account, reference)
        except CallerError as error:
            shown = await self._run(self._methods, person)
            return await self._site.again(request, error, "methods", **shown)
        return self._site.to("/account/methods", "method_added")

    async def remove_method(self, request: Request, person: Owner) -> Response:
        try:
            form = await self._site.form(request)
            await self._calls.pay(
                methods.remove, self._desk, person.actor, person.account, form.text("method")
            )
        except CallerError as error:
            shown = await self._run(self._methods, person)
            return await self._site.again(request, error, "methods", **shown)
        return self._site.to("/account/methods", "method_removed")


def _kind(text: str) -> str:
    if text not in KINDS:
        raise Unprocessable("an address is an email or a mobile", code="bad_address_kind")
    return text


def _after(request: Request) -> int:
    text = request.query_params.get("after", "")
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else 0
