"""Answers to devices: small, ready-made bytes."""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus

CHALLENGE = 'Basic realm="clipkeep", charset="UTF-8"'
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
RETRY_AFTER_S = 2
"""What a refused device is asked to wait. tus clients ignore it and ffmpeg ignores everything; others obey."""


_PHRASES = {460: "Checksum Mismatch"}
"""Of statuses that HTTP does not know: tus has one."""


class Answer:
    """What a request is answered: a status and, for a refusal, its stable code and what to do. Immutable."""

    __slots__ = ("_wire", "code", "cuts_off", "detail", "lines", "retry_after_s", "server_ms", "status")

    def __init__(
        self,
        status: int,
        code: str = "",
        detail: str = "",
        server_ms: int = 0,
        *,
        cuts_off: bool = False,
        retry_after_s: int = RETRY_AFTER_S,
        lines: tuple[str, ...] = (),
    ) -> None:
        self.status = status
        self.server_ms = server_ms
        """What time it is here, Unix ms, for a device whose clock may be wrong; 0 says nothing."""
        self.cuts_off = cuts_off
        """The connection ends with it at once: the sending fails of an encoder that reads no answers, as ffmpeg."""
        self.retry_after_s = retry_after_s
        """Said with 429 and 503."""
        self.lines = lines
        """Headers besides, each without its line end."""
        self.code = code
        self.detail = detail
        self._wire: tuple[bytes, bytes] | None = None

    def beside(self, lines: tuple[str, ...]) -> Answer:
        """The same with these headers, too."""
        if not lines:
            return self
        return Answer(
            self.status,
            self.code,
            self.detail,
            self.server_ms,
            cuts_off=self.cuts_off,
            retry_after_s=self.retry_after_s,
            lines=lines + self.lines,
        )

    def render(self, *, close: bool = False) -> bytes:
        """The bytes on the wire. `close` says that the connection ends after them."""
        if self._wire is None:
            self._wire = (self._rendered(False), self._rendered(True))
        return self._wire[1] if close else self._wire[0]

    def _rendered(self, close: bool) -> bytes:
        body = b""
        lines = [
            f"HTTP/1.1 {self.status} {_PHRASES.get(self.status) or HTTPStatus(self.status).phrase}",
            *self.lines,
        ]
        if self.code:
            told: dict[str, str | int] = {"error": self.code, "detail": self.detail}
            if self.server_ms:
                told["server_ms"] = self.server_ms
                lines.append(f"Date: {formatdate(self.server_ms / 1000, usegmt=True)}")
            body = json.dumps(told).encode() + b"\n"
            lines.append("Content-Type: application/json")
        if self.status != 204:
            lines.append(f"Content-Length: {len(body)}")
        if self.status == 401:
            lines.append(f"WWW-Authenticate: {CHALLENGE}")
        if self.status in (429, 503):
            lines.append(f"Retry-After: {self.retry_after_s}")
        if close:
            lines.append("Connection: close")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


STORED = Answer(201)
ALREADY_STORED = Answer(200)
NOTHING_TO_DO = Answer(204)
CONFLICT = Answer(409, "conflict", "other bytes are stored for this device and capture time")
UNKNOWN_PATH = Answer(
    404,
    "not_found",
    "PUT or POST /v1/devices/{n}/chunks/{capture_ms} (Unix milliseconds, digits alone), or "
    "/v1/devices/{n}/live/{name}.ts (or .m4s, .mp4, .mov), where a name has letters, digits, "
    "folders and . _ - : + = , @ ~, 200 characters at most",
)
TLS_REQUIRED = Answer(
    400,
    "tls_required",
    "this port speaks TLS: use https://. A token that was sent in clear may have been read on its way: have a new one "
    "made",
)
DASH = Answer(
    415,
    "unsupported_name",
    "DASH (.mpd, init-stream…, chunk-stream…) is not taken, for it sends picture and sound apart. With ffmpeg: -f hls "
    "-hls_segment_type mpegts, or -hls_segment_type fmp4",
    cuts_off=True,
)
NO_INIT = Answer(
    409,
    "no_init",
    "fMP4 without its init segment: send that first (with ffmpeg: start it anew), then its fragments",
)
NO_TOKEN = Answer(401, "no_token", "send this device's token: Bearer, or Basic with the device number")
BAD_TOKEN = Answer(401, "bad_token", "this is not the token of this device, or no longer")
SUSPENDED = Answer(403, "suspended", "the operator has suspended this device")
TERMINATED = Answer(403, "terminated", "this device was terminated, for good")
PLAN_LAPSED = Answer(403, "plan_lapsed", "no plan of this device covers today")
PARTIAL = Answer(
    400,
    "partial",
    "send a whole chunk in one request: one with Content-Range is a part, and would pass for the whole",
)
EXPIRED = Answer(410, "expired", "at this capture time the recording would already have expired")
DELETED = Answer(410, "deleted", "this range of recordings was deleted")
EMPTY = Answer(400, "empty", "a chunk has at least one byte")
OVERLOADED = Answer(503, "overloaded", "more is under way than this server takes; try again")
HOST_STALE = Answer(
    503,
    "host_stale",
    "this host has not heard from home for too long to know who may what; try again, or another host",
)
STOPPING = Answer(503, "stopping", "this server is going down; connect again")
STORE_DOWN = Answer(503, "store_unavailable", "chunks cannot be stored at the moment; try again")
TRY_AGAIN = Answer(503, "not_stored", "the chunk could not be stored; send it again")
RATE_LIMITED = Answer(503, "rate_limited", "this device sends more than its limit; slow down")
TOO_SLOW = Answer(408, "too_slow", "the body came slower than the server waits for")
HEAD_TIMEOUT = Answer(408, "head_timeout", "the request's head did not come in time")
DIGEST_MISMATCH = Answer(
    422, "digest_mismatch", "the body is not what Content-Digest promised; send it again"
)


def time_digits(digits: int) -> Answer:
    """A name that is a time in another unit than those that are taken."""
    unit = {16: ", as of microseconds", 19: ", as of nanoseconds"}.get(digits, "")
    detail = (
        f"this time has {digits} digits{unit}: send Unix milliseconds, 13 digits; in a live name seconds, 10 digits, "
        "or milliseconds"
    )
    return Answer(400, "time_digits", detail)


def clock_ahead(capture_ms: int, now_ms: int) -> Answer:
    detail = "the capture time is over 10 minutes ahead: set the device's clock"
    return Answer(422, "clock_ahead", detail + _unit(capture_ms, now_ms), now_ms)


def clock_behind(capture_ms: int, now_ms: int) -> Answer:
    """A time that no recording may have that could still be kept: the clock was not set yet."""
    detail = "the capture time is older than anything that is kept: set the device's clock, and name the chunk anew"
    return Answer(410, "clock_behind", detail + _unit(capture_ms, now_ms), now_ms)


def not_entitled(capture_ms: int, now_ms: int) -> Answer:
    detail = "no plan of this device covers the capture time"
    return Answer(403, "not_entitled_at_capture", detail + _unit(capture_ms, now_ms), now_ms)


def expired(now_ms: int) -> Answer:
    return Answer(EXPIRED.status, EXPIRED.code, EXPIRED.detail, now_ms)


_ABOUT_NOW_MS = 400 * 86_400_000
"""A time in seconds is told by being within 400 days of now."""


def _unit(capture_ms: int, now_ms: int) -> str:
    """What to say of a capture time that was given in seconds. Of finer ones: see `time_digits`."""
    if abs(capture_ms * 1000 - now_ms) < _ABOUT_NOW_MS:
        return f". {capture_ms} is now in seconds: capture times are in milliseconds"
    return ""


def unknown_media(looks_like: str) -> Answer:
    return Answer(415, "unknown_media", f"a chunk is MPEG-TS or MP4{'; ' if looks_like else ''}{looks_like}")


def unplayable(missing: str, what: str) -> Answer:
    """A chunk that could be kept and never be played. `missing`: one of the words in `_UNPLAYABLE`."""
    status, code, begins = _UNPLAYABLE[missing]
    return Answer(status, code, begins + what)


_UNPLAYABLE = {
    "header": (415, "no_header", "this MP4 lacks its header: "),
    "frames": (422, "no_frames", "nothing to play: "),
    "init": (409, "no_init", "fMP4 without its init segment: "),
    "clear": (415, "encrypted", "this MP4 can't be played by anybody who has no key of its own: "),
    "codec": (415, "unknown_codec", "H.264, H.265, AAC, MP3, Opus and AC-3 can be played, this can't: "),
}


def malformed(detail: str) -> Answer:
    return Answer(400, "malformed", detail)


def head_too_large(detail: str) -> Answer:
    return Answer(431, "head_too_large", detail)


def too_large(limit_bytes: int) -> Answer:
    return Answer(413, "too_large", f"a chunk has at most {limit_bytes} bytes")
