"""What owners say of advertisements and partners, and the link that ends advertisements (agreement 2.6, 2.7)."""

from __future__ import annotations

from html import escape
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from service.agreement import consents
from service.agreement.consents import TOKEN_CHARS
from service.api.door import Account, Caller
from service.api.models.people import Consent, ConsentAsked
from service.api.problems import NO_STORE, PrivateJSON
from service.api.routing import Answers, add, content
from service.api.services import Api

Subject = Annotated[str, Path(min_length=1, max_length=64, description="`advertisements` or `partner:NAME`")]
Token = Annotated[
    str,
    Query(
        min_length=TOKEN_CHARS, max_length=TOKEN_CHARS, pattern="^[A-Za-z0-9_-]+$", description="of the link"
    ),
]
POLICY = "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
"""Of a page that has a button, and nothing else."""


class Consents:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["consents"], default_response_class=PrivateJSON)
        of_account = "/v1/accounts/{account}/consents"
        page: Answers = {200: content("text/html")}
        add(router, "GET", of_account, self.said, refuses=(401, 403, 404))
        add(router, "PUT", f"{of_account}/{{subject}}", self.say, refuses=(401, 403, 404))
        link = "/v1/unsubscribe"
        add(router, "GET", link, self.ask, refuses=(404,), types=page, response_class=Response)
        add(router, "POST", link, self.unsubscribe, refuses=(404,), types=page, response_class=Response)
        return router

    async def said(self, account: Account, actor: Caller) -> list[Consent]:
        """What is not owed, and what the owner has said of each: advertisements, and data that partners would be given.
        Without a yes nothing is given to a partner."""
        return [Consent.of(one) for one in await self._run(consents.said, self._desk, actor, account)]

    async def say(
        self, account: Account, subject: Subject, actor: Caller, asked: ConsentAsked
    ) -> list[Consent]:
        """Say yes or no to one of them; it can be changed at any time. Kept with when and how it was said."""
        await self._run(consents.say, self._desk, actor, account, subject, asked.given)
        return await self.said(account, actor)

    async def ask(self, token: Token) -> Response:
        """The page behind the link of an advertisement: a button that ends them. Looking at it changes nothing, for
        programs look at links in mail, too."""
        consents.account_of_link(self._desk, token)
        return _page(
            "<p>Do you want no more advertisements?</p><form method=post"
            f' action="/v1/unsubscribe?token={escape(token)}"><button>No more of them</button></form>'
        )

    async def unsubscribe(self, token: Token) -> Response:
        """No more advertisements to the account of this link, at once and without a log-in (RFC 8058). Again changes
        nothing. What is sent along is not looked at."""
        consents.account_of_link(self._desk, token)
        await self._run(consents.unsubscribe, self._desk, token)
        return _page("<p>You will get no more advertisements.</p>")


def _page(body: str) -> Response:
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Advertisements</title>{body}</html>"
    )
    headers = NO_STORE | {"Content-Security-Policy": POLICY}
    return Response(text, headers=headers, media_type="text/html; charset=utf-8")
