"""An owner's own account: data, addresses, password, consents, history, and all of it as a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response

from service.agreement import consents, elsewhere, methods, my_data, records, registration, sessions
from service.agreement.errors import Unprocessable
from service.agreement.texts import MAX_NAME_CHARS
from service.api.door import Client
from service.api.exports import ExportNumber, Exports
from service.pages.door import Owner
from service.pages.forms import Form
from service.pages.paging import PAGE_ROWS, number_in, paged
from service.pages.registering import MAX_ADDRESS_CHARS, MAX_CODE_CHARS
from service.pages.site import Part, Person, Site
from storage.errors import CallerError

T = TypeVar("T")
KINDS = ("email", "mobile")


class Account(Part):
    """The handlers."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
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
            "identities": elsewhere.listed(desk, actor, account),
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
        events, more = await self._rows(request, person, records.events, lambda row: row.event_id)
        return self._site.page(request, "history", events=events, more=more)

    async def _rows(
        self, request: Request, person: Person, find: Callable[..., list[T]], number: Callable[[T], int]
    ) -> tuple[Sequence[T], int | None]:
        """The page of a list that the address names."""
        after = number_in(request, "after")
        found = await self._run(
            find, self._desk, person.actor, person.account, after=after, limit=PAGE_ROWS + 1
        )
        return paged(found, number)

    # --- money ------------------------------------------------------------------------------------------------

    async def payments(self, request: Request, person: Owner) -> Response:
        payments, more = await self._rows(request, person, records.payments, lambda row: row.payment_id)
        return self._site.page(request, "payments", payments=payments, more=more)

    async def methods(self, request: Request, person: Owner) -> Response:
        return self._site.page(request, "methods", **await self._run(self._methods, person))

    def _methods(self, person: Person) -> dict[str, Any]:
        rows = methods.methods_of(self._desk, person.actor, person.account)
        return {"methods": rows, "keeps_methods": self._desk.gateway.keeps_methods}

    async def add_method(self, request: Request, person: Owner) -> Response:
        """Where the gateway wants something entered, the page that comes next has the link."""

        def add(form: Form) -> object:
            reference = f"method-{self._desk.random_bytes(20).hex()}"
            return methods.set_up(self._desk, person.actor, person.account, reference)

        return await self._change_method(request, person, add, "method_added")

    async def remove_method(self, request: Request, person: Owner) -> Response:
        def remove(form: Form) -> None:
            methods.remove(self._desk, person.actor, person.account, form.text("method"))

        return await self._change_method(request, person, remove, "method_removed")

    async def _change_method(
        self, request: Request, person: Person, change: Callable[[Form], object], said: str
    ) -> Response:
        try:
            await self._calls.pay(change, await self._site.form(request))
        except CallerError as error:
            shown = await self._run(self._methods, person)
            return await self._site.again(request, error, "methods", **shown)
        return self._site.to("/account/methods", said)


def _kind(text: str) -> str:
    if text not in KINDS:
        raise Unprocessable("an address is an email or a mobile", code="bad_address_kind")
    return text
