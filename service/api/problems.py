"""Refusals and failures as `application/problem+json` (RFC 9457): one shape for all of the port."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse

from ingest import answers
from service.http.answers import PROBLEM_TYPE, problem_document

NO_STORE = {"Cache-Control": "no-store"}
RETRY = {"Retry-After": str(answers.RETRY_AFTER_S)}


class PrivateJSON(JSONResponse):
    """JSON that no cache keeps: it is about somebody."""

    def __init__(self, content: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(content, *args, **kwargs)
        self.headers.setdefault("Cache-Control", "no-store")


def problem(
    status: int, code: str, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """An answer that says what happened, to programs by `error` and to people by `detail`.

    Args:
        more: further members of the document.
    """
    headers = NO_STORE | (headers or {})
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers = RETRY | headers
    document = problem_document(status, code, detail)
    return Response(json.dumps(document | more) + "\n", status, headers, PROBLEM_TYPE)
