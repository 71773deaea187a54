"""What all pages share: templates, forms, redirects, and what is said when something is refused."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import trio
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from isal import igzip
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from retention.money import Money
from service.agreement.bearer import OPERATOR_PREFIX, OWNER_PREFIX
from service.agreement.desk import Actor
from service.agreement.errors import Forbidden, Unauthorized
from service.api.asking import takes_gzip
from service.api.errors import answer_to
from service.api.services import Api
from service.pages import cookies
from service.pages.filters import FILTERS
from service.pages.forgery import Forgery
from service.pages.forms import Form, own_path
from service.pages.static import Static
from service.pages.words import SAID, TITLES, refused
from storage.errors import ClipkeepError

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; media-src 'self' blob:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""A page loads its own files and asks its own port: nothing else, and no script or style in its text. Video is put
together by the player, which is what `blob:` is for."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept-Encoding, Cookie",
}
GZIP_FROM_BYTES = 1024
LOG_IN = "/log-in"
BACK = "/log-in/elsewhere/back"
"""To where providers of log-in send browsers back."""
_OTHER_SITES = ("cross-site", "same-site")
"""What a browser says of a request that another site has caused (Fetch Metadata)."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who is logged in."""

    token: str
    actor: Actor

    @property
    def account(self) -> int:
        return self.actor.account


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal as a page shows it.

    Args:
        reasons: of one that has several, each with `detail` and `what_to_do`.
        url: where whoever pays has to do something first.
    """

    status: int
    code: str
    text: str
    reasons: tuple[dict[str, str], ...] = ()
    url: str = ""
    retry_after: str = ""


class LogInFirst(Unauthorized):
    """Nobody is logged in, or somebody whose log-in has ended."""

    code = "session_ended"


class Site:
    """See the module docstring; one for each application."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.desk = api.desk
        self.calls = api.calls
        self.static = Static()
        self.forgery = Forgery(api.services.token_secret, api.desk.random_bytes)
        self._templates = Environment(
            loader=PackageLoader("service.pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters.update(cast(dict[str, Callable[..., Any]], dict(FILTERS)))
        self._templates.globals["static"] = self.static.address
        self._templates.globals["money"] = Money

    def enter(self, request: Request, response: Response, token: str, expires_ms: int | None) -> None:
        """Let a browser keep a log-in, until it ends; None: until the browser is closed."""
        lasts_s = None if expires_ms is None else max(1, (expires_ms - self.desk.now_ms()) // 1000)
        self.set_cookie(request, response, cookies.LOG_IN, token, lasts_s)
        self.set_cookie(request, response, cookies.VISITOR, "", 0)

    # --- routes -----------------------------------------------------------------------------------------------

    @staticmethod
    def router() -> APIRouter:
        return APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=Response)

    @staticmethod
    def get(router: APIRouter, path: str, handler: Callable[..., Any]) -> None:
        router.add_api_route(path, handler, methods=["GET", "HEAD"])

    @staticmethod
    def post(router: APIRouter, path: str, handler: Callable[..., Any]) -> None:
        """A handler that changes something: it reads `form`, and answers with `to`."""
        router.add_api_route(path, handler, methods=["POST"])

    # --- who asks ---------------------------------------------------------------------------------------------

    @staticmethod
    def is_secure(request: Request) -> bool:
        return request.url.scheme == "https"

    def cookie(self, request: Request, name: str) -> str:
        return cookies.read(request.cookies, name, secure=self.is_secure(request))

    def token(self, request: Request) -> str:
        """Of a log-in; "" without one. Not looked up."""
        return self.cookie(request, cookies.LOG_IN)

    def set_cookie(
        self, request: Request, response: Response, name: str, value: str, max_age_s: int | None
    ) -> None:
        made = cookies.made(name, value, secure=self.is_secure(request), max_age_s=max_age_s)
        response.headers.append("Set-Cookie", made)

    def way_back(self, request: Request) -> str:
        """Where providers of log-in send this browser back to: the address of `[openid] redirect_uris` that is these
        pages', at the host that is asked; "": none is."""
        host = request.headers.get("host", "").lower()
        for uri in self.api.services.providers.redirect_uris:
            parts = urlsplit(uri)
            if parts.path == BACK and not parts.query and parts.netloc.lower() == host:
                return uri
        return ""

    def providers(self, request: Request) -> tuple[str, ...]:
        """Where one may log in from this page."""
        return tuple(self.api.services.providers.by_name) if self.way_back(request) else ()

    # --- forms ------------------------------------------------------------------------------------------------

    async def form(self, request: Request) -> Form:
        """The form of this request, which is one of our own pages'.

        Raises:
            Forbidden: `forged`; RequestValidationError: no form that a page of ours sends.
        """
        form = Form.of(await request.body())
        whose = self.token(request) or self.cookie(request, cookies.VISITOR)
        elsewhere = request.headers.get("sec-fetch-site", "") in _OTHER_SITES
        if elsewhere or not self.forgery.is_good(whose, form["form"]):
            raise Forbidden("the form is too old, or not one of this site", code="forged")
        return form

    # --- answers ----------------------------------------------------------------------------------------------

    def page(self, request: Request, template: str, status: int = 200, /, **context: Any) -> Response:
        """A page. Templates have `form_token()`, `said`, `kind` ("owner", "operator" or ""), `path` and
        `providers()` besides.

        Args:
            template: its name, without folder and ending.
            context: what it shows. Escaped there.
        """
        token = self.token(request)
        visitor = self.cookie(request, cookies.VISITOR)
        new = ""

        def form_token() -> str:
            nonlocal new
            if not token and not cookies.is_visitor(visitor) and not new:
                new = urlsafe_b64encode(self.desk.random_bytes(16)).rstrip(b"=").decode()
            return self.forgery.token(token or new or visitor)

        context = {
            "form_token": form_token,
            "said": SAID.get(request.query_params.get("said", ""), ""),
            "kind": _kind(token),
            "path": request.url.path,
            "problem": None,
            "providers": lambda: self.providers(request),
        } | context
        body = self._templates.get_template(f"{template}.html").render(context).encode()
        headers = dict(HEADERS)
        if len(body) >= GZIP_FROM_BYTES and takes_gzip(request.headers.get("accept-encoding", "")):
            body, headers["Content-Encoding"] = igzip.compress(body, compresslevel=1), "gzip"
        response = Response(body, status, headers, "text/html; charset=utf-8")
        if new:
            self.set_cookie(request, response, cookies.VISITOR, new, cookies.VISITOR_S)
        return response

    def to(self, path: str, said: str = "", **query: str | int) -> Response:
        """See other: after a form.

        Args:
            path: of this site.
            said: one of the codes in `words.SAID`.
        """
        assert not said or said in SAID
        query = query | ({"said": said} if said else {})
        target = f"{path}{'&' if '?' in path else '?'}{urlencode(query)}" if query else path
        return Response(None, 303, {"Location": target, "Cache-Control": "no-store"})

    async def problem(self, request: Request, error: Exception) -> Problem:
        """What an error comes to, in words. It is logged as the API's are."""
        answer = await answer_to(request, error)
        told = json.loads(bytes(answer.body))
        return Problem(
            answer.status_code,
            told["error"],
            refused(told["error"], told["detail"]),
            tuple(told.get("reasons", ())),
            told.get("url", ""),
            answer.headers.get("retry-after", ""),
        )

    async def again(self, request: Request, error: Exception, template: str, /, **context: Any) -> Response:
        """The page of a form that was refused, with what is the matter, and what was entered."""
        problem = await self.problem(request, error)
        response = self.page(request, template, problem.status, problem=problem, **context)
        if problem.retry_after:
            response.headers["Retry-After"] = problem.retry_after
        return response

    async def failure(self, request: Request, error: Exception) -> Response:
        """A page for an error that no handler has dealt with."""
        if isinstance(error, Unauthorized) and error.code == "session_ended":
            return self._log_in_first(request)
        problem = await self.problem(request, error)
        title = TITLES.get(problem.status, "Not possible")
        response = self.page(request, "problem", problem.status, problem=problem, title=title)
        if problem.retry_after:
            response.headers["Retry-After"] = problem.retry_after
        return response

    def _log_in_first(self, request: Request) -> Response:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        had = bool(self.token(request))
        query = {"said": "session_ended" if had else "log_in_first"}
        if request.method in ("GET", "HEAD") and own_path(here):
            query["next"] = here
        response = Response(
            None,
            303,
            {"Location": f"{LOG_IN}?{urlencode(query, safe='/')}", "Cache-Control": "no-store"},
        )
        if had:
            self.set_cookie(request, response, cookies.LOG_IN, "", 0)
        return response


class Part:
    """A group of pages. Its handlers are its methods; `routes` says at which paths."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._desk = site.desk
        self._calls = site.calls
        self._run = site.calls.run
        self._playback = site.api.playback

    def routes(self) -> APIRouter:
        raise NotImplementedError


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            site: Site = request.app.state.site
            try:
                return await handler(request)
            except (ClipkeepError, RequestValidationError, HTTPException) as error:
                return await site.failure(request, error)
            except (trio.Cancelled, AssertionError):
                raise
            except Exception as error:
                return await site.failure(request, error)

        return answer


def _kind(token: str) -> str:
    """By its form alone: what the head of a page links to. Whether the token is good is asked by what needs it."""
    if token.startswith(OWNER_PREFIX):
        return "owner"
    return "operator" if token.startswith(OPERATOR_PREFIX) else ""
