"""What may come in at all: small bodies of strict JSON in UTF-8, that arrive in time. Before any page is asked.

The reading of JSON is Python's, which takes more than the standard allows (NaN, UTF-16, the last of two equal names);
what is more is refused here, so that two programs can't read the same request differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

import trio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem
from storage.errors import CallerError

MAX_BODY_BYTES = 64 * 1024
"""An announcement is the longest that anybody has to say."""
UPLOADS_ELSEWHERE = (
    "a device sends its chunks to the ingest port, not here: 8080, unless `serve --ingest` differs"
)
_UPLOAD = re.compile(r"/v1/devices/[^/]+/(chunks|live)/.+")
FORM = "/v1/unsubscribe"
"""A mail program posts a form there, as RFC 8058 has it, and nobody reads that."""
FORM_TYPE = "application/x-www-form-urlencoded"
API = "/v1/"
"""Below it bodies are JSON. What else is posted to this port are the forms of its pages (`service.pages`)."""
_WITHOUT = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods whose bodies nobody reads."""


def is_upload(path: str) -> bool:
    """Whether a device would send a chunk to this path."""
    return _UPLOAD.fullmatch(path) is not None


class BadBody(CallerError):
    """Not taken. `status` is the answer's."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail, code=code)
        self.status = status


class Gone(Exception):
    """The client left before its body was whole."""


class StrictBodies:
    """ASGI middleware: what it lets through is well-formed, and its body is in memory.

    Args:
        wait_s: for a whole body.
    """

    def __init__(self, app: ASGIApp, *, wait_s: float) -> None:
        self._app = app
        self._wait_s = wait_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            check_address(scope["raw_path"], scope["query_string"])
            if scope["method"] in _WITHOUT:
                return await self._app(scope, receive, send)
            headers = Headers(scope=scope)
            body = await self._read(headers, receive)
            if scope["path"] == FORM:
                body = b""
            elif scope["path"].startswith(API):
                check_body(headers, body)
            else:
                check_form(headers, body)
                return await self._app(scope, _replayed(body, receive), send)
        except BadBody as error:
            if is_upload(scope["path"]):
                error.detail += f"; {UPLOADS_ELSEWHERE}"
            # What has not been read of the body can't be skipped: the connection ends with the answer.
            headers_out = {"Connection": "close"} if error.status in (408, 413) else {}
            return await problem(error.status, error.code, error.detail, headers_out)(scope, receive, send)
        except Gone:
            return None
        if not body:
            # Nothing is an object without members: a page that requires none takes it, any other says which it wants.
            body = b"{}"
            types = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
            scope = {**scope, "headers": [*types, (b"content-type", b"application/json")]}
        await self._app(scope, _replayed(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        announced = headers.get("content-length", "0")
        # The server has checked that it is a number; its digits say enough of one that is too long to read.
        if len(announced.lstrip("0")) > 9 or int(announced) > MAX_BODY_BYTES:
            raise _too_large()
        body = bytearray()
        with trio.move_on_after(self._wait_s) as patience:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
        if patience.cancelled_caught:
            raise BadBody(408, "too_slow", f"a body has to arrive within {self._wait_s:g} s")
        return bytes(body)


def _too_large() -> BadBody:
    return BadBody(413, "too_large", f"a body has at most {MAX_BODY_BYTES} bytes")


_ENCODED_SLASH = re.compile(rb"%(?:2f|5c)", re.IGNORECASE)


def check_address(path: bytes, query: bytes) -> None:
    """Percent-encoded bytes of an address are UTF-8 without control characters, and no slashes in a path, else
    `malformed`."""
    for place, raw in (("path", path), ("query", query)):
        if b"%" in raw:
            try:
                text = unquote_to_bytes(raw).decode()
            except UnicodeDecodeError:
                raise BadBody(400, "malformed", f"{place}: is not UTF-8") from None
            if "\0" in text:
                raise BadBody(400, "malformed", f"{place}: has a NUL")
    if _ENCODED_SLASH.search(path):
        # Decoded it would be another path than the one that a proxy has let through.
        raise BadBody(400, "malformed", "path: has an encoded slash")


def check_form(headers: Headers, body: bytes) -> None:
    """The body of a form, as browsers send one: percent-encoded UTF-8.

    Raises:
        BadBody: 415 `unsupported_media_type`, 400 `malformed`.
    """
    kind = headers.get("content-type", "").lower().partition(";")[0].strip()
    if body and (kind != FORM_TYPE or headers.get("content-encoding", "identity").lower() != "identity"):
        raise BadBody(415, "unsupported_media_type", f"pages take forms, as {FORM_TYPE}")
    try:
        text = unquote_to_bytes(body).decode()
    except UnicodeDecodeError:
        raise BadBody(400, "malformed", "body: is not UTF-8") from None
    if "\0" in text:
        raise BadBody(400, "malformed", "body: has a NUL")


def check_body(headers: Headers, body: bytes) -> None:
    """No body at all, or strict JSON that says so.

    Raises:
        BadBody: 415 `unsupported_media_type`, 400 `malformed`.
    """
    if not body:
        return
    kind, _, parameters = headers.get("content-type", "").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if kind.strip() != "application/json" or charset not in ("", "charset=utf-8"):
        raise BadBody(415, "unsupported_media_type", "send application/json in UTF-8")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise BadBody(415, "unsupported_media_type", "send the body as it is, without Content-Encoding")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadBody(400, "malformed", f"body: is not UTF-8 at byte {error.start}") from None
    if "\0" in text:
        raise BadBody(400, "malformed", "body: has a NUL")  # and may be UTF-16, which Python would read
    try:
        json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        why = "is nested too deep" if isinstance(error, RecursionError) else f"is no JSON: {error}"
        raise BadBody(400, "malformed", f"body: {why}") from None


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"two members have the name {name[:40]!r}")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` as if nothing had been read."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
