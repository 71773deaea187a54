"""What went wrong, as answers: one shape for all, and nothing of the inside in it."""

from __future__ import annotations

from http import HTTPStatus

import structlog
import trio
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ingest import answers
from service.agreement import errors
from service.agreement.errors import TooMany, Unprocessable
from service.agreement.payments import CustomerNeeded, PaymentUnavailable
from service.api.bodies import API, UPLOADS_ELSEWHERE, is_upload
from service.api.models.base import fields_of
from service.api.problems import problem
from service.http.server import OUT_OF_FILES
from service.logs import Sampled
from service.playback import Refused
from service.remuxing.remuxer import RemuxFailed
from storage.errors import (
    CallerError,
    ClipkeepError,
    KeyDestroyed,
    NotFound,
    StoreDenied,
    StoreUnavailable,
    WorldError,
)

_SAME_AS_INGEST = (
    answers.BAD_TOKEN,
    answers.SUSPENDED,
    answers.TERMINATED,
    answers.PLAN_LAPSED,
    answers.EXPIRED,
    answers.OVERLOADED,
    answers.HOST_STALE,
)
STATUS_OF = {answer.code: answer.status for answer in _SAME_AS_INGEST} | {
    "erased": 403,
    "not_found": 404,
    "only_mp4": 404,
    "range_only": 403,
    "range_too_large": 400,
}
"""Status of each code that `Refused` carries."""
STATUS_OF_KIND: dict[type[CallerError], int] = {
    errors.Unauthorized: 401,
    errors.PaymentRefused: 402,
    errors.Forbidden: 403,
    NotFound: 404,
    errors.Conflict: 409,
    Unprocessable: 422,
}
"""Status of each kind of refusal of the desk."""

MAX_PLACE_CHARS = 100

_log = structlog.get_logger("api")


_PAYMENT_WAITS = (
    "the payment gateway has not decided yet, or does not answer: send the same request again, under the same"
    " Idempotency-Key where it has one. Nothing is charged twice, and what gets paid for meanwhile starts by itself"
)


def answer_errors(app: FastAPI) -> None:
    """Every error that leaves a handler is answered from here, and told in the log, sampled: while a store is away or
    files are used up each request of a stranger would be a line."""
    app.state.failures = Sampled(_log, trio.current_time)
    app.add_exception_handler(ClipkeepError, _on_clipkeep_error)
    app.add_exception_handler(RequestValidationError, _on_malformed)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)


async def answer_to(request: Request, error: Exception) -> Response:
    """What an error that left a handler is answered with, for whoever words it otherwise."""
    match error:
        case ClipkeepError():
            return await _on_clipkeep_error(request, error)
        case RequestValidationError():
            return await _on_malformed(request, error)
        case HTTPException():
            return _of_router(request, error)
        case _:
            return await _on_bug(request, error)


async def _on_clipkeep_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ClipkeepError)
    failures: Sampled = request.app.state.failures
    match error:
        case RemuxFailed():
            return problem(422, error.code, error.detail)
        case Refused():
            return problem(STATUS_OF[error.code], error.code, error.detail)
        case TooMany():
            headers = {"Retry-After": str(error.retry_after_s)}
            return problem(429, error.code, error.detail, headers)
        case CustomerNeeded():
            return problem(402, error.code, error.detail, url=error.url, expires_ms=error.until_ms)
        case Unprocessable() if error.reasons:
            reasons = [fields_of(reason, "code", "detail", "what_to_do") for reason in error.reasons]
            return problem(422, error.code, error.detail, reasons=reasons)
        case CallerError() if isinstance(error, errors.ERRORS):
            status = next(status for kind, status in STATUS_OF_KIND.items() if isinstance(error, kind))
            return problem(status, error.code, str(error))
        case KeyDestroyed():
            return problem(410, answers.DELETED.code, "this recording was erased and can't be read by anyone")
        case StoreUnavailable() | StoreDenied():
            failures.warning("store_unavailable", code=error.code)
            return problem(503, answers.STORE_DOWN.code, answers.STORE_DOWN.detail)
        case PaymentUnavailable():
            failures.warning("unavailable", code=error.code)
            return problem(503, error.code, _PAYMENT_WAITS)
        case WorldError():
            failures.warning("unavailable", code=error.code)
            return problem(503, error.code, "something that is needed can't be reached; try again")
        case _:
            failures.error("failed", code=error.code)
            return problem(500, error.code, "this can't be read; the operator's log says more")


async def _on_malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # A place may be a name of the client's own making.
    place = ".".join(str(part) for part in first["loc"])[:MAX_PLACE_CHARS]
    # pydantic's own word before what a validator of ours says.
    said = first["msg"].removeprefix("Value error, ")
    return problem(400, "malformed", f"{place}: {said}")


async def _on_http_error(request: Request, error: Exception) -> Response:
    """What the router has to say: to a browser with a page."""
    assert isinstance(error, HTTPException)
    browser = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(API)
    if browser and error.status_code in (404, 405):
        page: Response = await request.app.state.site.failure(request, error)
        return page
    return _of_router(request, error)


def _of_router(request: Request, error: HTTPException) -> Response:
    match error.status_code:
        case 404 if request.method in ("PUT", "POST") and is_upload(request.url.path):
            return problem(404, "not_found", f"there is no such page here: {UPLOADS_ELSEWHERE}")
        case 404:
            return problem(404, "not_found", "there is no such page; /docs tells which there are")
        case 405:
            # The router knows one method of a page at a time, and so do its headers.
            allowed = ", ".join(sorted(request.app.state.methods.of(request.url.path)))
            detail = f"this page takes {allowed}"
            if request.method in ("PUT", "POST") and is_upload(request.url.path):
                detail = f"{detail}: {UPLOADS_ELSEWHERE}"
            return problem(405, "method_not_allowed", detail, {"Allow": allowed})
        case status:
            phrase = HTTPStatus(status).phrase
            return problem(status, phrase.lower().replace(" ", "_"), phrase)


async def _on_bug(request: Request, error: Exception) -> Response:
    failures: Sampled = request.app.state.failures
    if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
        failures.warning("out_of_files", detail=error.strerror)
        return problem(503, answers.OVERLOADED.code, answers.OVERLOADED.detail)
    failures.error("bug", type(error).__name__, exc_info=error)
    return problem(500, "internal", "a fault of the service; the operator's log says more")
