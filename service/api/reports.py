"""Reports of the payment gateway: the one page that a stranger may ask for with a body that means something.

What a stranger costs here is bounded before anything is computed: `ReportsDoor` looks at the headers alone, and lets
nobody in who does not announce a short body, a signature and a time of now. Only then the body is read, by its
announced length and within `[api] body_wait_s`, is found to be JSON as any body, and its signature is looked at: of 16
KiB at most by default, some 20 us for each key. What is not signed goes no further; it reaches neither a thread nor the
catalog, and learns nothing of any reference. A flood of such bodies costs some 1 ms of CPU each, all in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
import trio
from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.agreement import reports
from service.agreement.errors import Unauthorized
from service.agreement.gateway.signing import (
    REPORT,
    SIGNATURE,
    TIMESTAMP,
    header_signatures,
    is_signed,
    timestamp_s,
)
from service.agreement.gateway.told import Report
from service.agreement.reports import Heard
from service.api.models.methods import ReportTaken
from service.api.problems import PrivateJSON, problem
from service.api.routing import Answers, add
from service.api.services import Api, api_of
from service.config import PaymentSettings
from service.logs import Sampled
from storage.errors import NotFound

REPORTS = "/v1/payments/reports"

_log = structlog.get_logger("api")


class ReportsDoor:
    """ASGI middleware: what it lets through to the page is announced, short, and claims to be signed now.

    Args:
        now_s: Unix s.
    """

    def __init__(
        self, app: ASGIApp, *, settings: PaymentSettings, now_s: Callable[[], float] = time.time
    ) -> None:
        self._app = app
        self._settings = settings
        self._now_s = now_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] == "http" and scope["path"] == REPORTS and scope["method"] == "POST"
        refusal = self._refusal(Headers(scope=scope)) if asks else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal(scope, receive, send)

    def _refusal(self, headers: Headers) -> Response | None:
        # What has not been read of the body can't be skipped: the connection ends with the answer.
        close = {"Connection": "close"}
        if self._settings.gateway == "record":
            return problem(404, "not_found", "payments are not made by a gateway that reports", close)
        length, most = headers.get("content-length", ""), self._settings.max_report_bytes
        if not length or len(length.lstrip("0")) > 9 or int(length) > most:
            return problem(413, "too_large", f"a report has a Content-Length of at most {most} bytes", close)
        sent_s = timestamp_s(headers.get(TIMESTAMP, ""))
        if sent_s is None or abs(sent_s - self._now_s()) > self._settings.report_window_s:
            return problem(
                401,
                "bad_signature",
                f"{TIMESTAMP} is the time of sending in Unix s, within {self._settings.report_window_s} s of ours",
                close,
            )
        if not header_signatures(headers.get(SIGNATURE, "")):
            return problem(401, "bad_signature", f"a report is signed: {SIGNATURE}: v1=…", close)
        return None


async def signed(request: Request) -> None:
    """Raises Unauthorized `bad_signature`. Before the body is looked at."""
    keys = api_of(request).services.report_keys
    if keys is None:
        raise NotFound("payments are not made by a gateway that reports")
    headers, body = request.headers, await request.body()
    made = headers.get(SIGNATURE, "")
    if not is_signed(keys.now(), REPORT, headers.get(TIMESTAMP, ""), REPORT, body, made):
        raise Unauthorized("this is not signed with the key that we have", code="bad_signature")


class Reports:
    """The handler. Its docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run
        self._unfit = Sampled(_log, trio.current_time)

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["payment gateway"], default_response_class=PrivateJSON)
        taken: Answers = {202: {"model": ReportTaken}}
        add(
            router,
            "POST",
            REPORTS,
            self.report,
            refuses=(401, 404),
            types=taken,
            status=202,
            dependencies=[Depends(signed)],
        )
        return router

    async def report(self, asked: Report) -> ReportTaken:
        """For the payment gateway alone: what became of a payment, a method's set-up or a dispute. Signed as
        docs/payments.md says. A report may be sent again, and in any order; one that is answered 503 is to be. What is
        about nothing that is known here is answered like any other."""
        heard = await self._run(reports.hear, self._desk, asked)
        if heard is not Heard.TAKEN:
            self._unfit.warning("payment_report_unfit", what=str(heard), about=asked.about)
        return ReportTaken()
