"""A put of S3 without botocore around it: the same request, for a tenth of the CPU.

botocore takes 0.9 ms for each put (bench, a warm loop), nearly all of it for what is the same every time. So it makes
the first put, and each put for which no connection is open. What it sent and the store took with a 200 is the pattern
for those that follow: they go out here, on the connections in botocore's own pool, with their own key, checksum, date
and signature.

- A pattern is only taken when the signature made here for botocore's request is, byte for byte, the one that botocore
  made. Whatever signs or addresses in another way (S3 Express, multi-region access points, no credentials, headers that
  are not known here) differs in that, and stays botocore's. So does what goes through a proxy.
- All that counts as stored here is a whole, plain 200 without a body, with an `ETag`, that came after the body. After
  anything else the caller asks botocore to put the same bytes under the same key, which is harmless to repeat
  (`ObjectStore.put`). Retries, redirects, throttling and errors are botocore's alone.
- No connection is made here. Addresses, TLS and its certificates, keep-alive and the bound on idle connections are the
  pool's, and a connection that the server closed meanwhile is found out by it.
- A failure ends its pattern: the next one is taken no sooner than `PAUSE_S` later, from a put of botocore's that
  succeeded. So an outage is not twice as slow.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from urllib3.exceptions import HTTPError

from storage.s3_answers import PutAnswer
from storage.s3_wire import LastSent, SentRequest, send_until

DIRECT_S = 15.0
"""For one attempt, from its first byte to the end of the answer. A store that takes longer is ill, and botocore waits
for it. Also what keeps twice the bound of a put within the default of `prepare_ttl_s`."""
PAUSE_S = 60.0
"""After a failed attempt, before a pattern is taken again: what fails only here costs a thread one put in so long."""
MAX_ANSWER_BYTES = 16 * 1024
"""Of an answer's head; S3's has 400 bytes."""

_DEFAULT_PORT = {"http": 80, "https": 443}
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/([^/]+)/s3/aws4_request, ")
_UNSIGNED = "UNSIGNED-PAYLOAD"
CRC32 = "x-amz-checksum-crc32"
MD5 = "content-md5"


class Keys(Protocol):
    """Credentials at one moment: botocore's frozen ones."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Pattern:
    """What all puts have in common.

    Attributes:
        host: as in `Host`, with a port unless it is the scheme's own.
        root: path before an object's key, percent-encoded.
        region: to sign for.
    """

    host: str
    root: str
    region: str


class Signer:
    """AWS Signature Version 4 of a put with an unsigned payload. Threads may share it.

    The key of a day is derived once: four of the five HMACs of a request.
    """

    def __init__(self) -> None:
        self._day_key: tuple[tuple[str, str, str], bytes] = (("", "", ""), b"")

    def headers(
        self, pattern: Pattern, key: str, date: str, checksum: str, keys: Keys, name: str = CRC32
    ) -> str:
        """The signed header lines of a put and `Authorization`, each with its CRLF.

        Args:
            pattern: where to.
            key: of the object; no character of it needs encoding (`checked_key`).
            date: UTC, as `20260131T235959Z`.
            checksum: of the body, in base64; empty for none.
            keys: to sign with.
            name: of the header that the checksum goes in, in lower case.
        """
        fields = {
            "host": pattern.host,
            name: checksum,
            "x-amz-content-sha256": _UNSIGNED,
            "x-amz-date": date,
        }
        if keys.token:
            fields["x-amz-security-token"] = keys.token
        fields = {name: fields[name] for name in sorted(fields) if fields[name]}
        signed = ";".join(fields)
        lines = "\n".join([f"{name}:{value}" for name, value in fields.items()])
        request = f"PUT\n{pattern.root}{key}\n\n{lines}\n\n{signed}\n{_UNSIGNED}"
        scope = f"{date[:8]}/{pattern.region}/s3/aws4_request"
        digest = hashlib.sha256(request.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}"
        day_key = self._key_of_day(keys.secret_key, date[:8], pattern.region)
        signature = _hmac(day_key, to_sign).hex()
        sent = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
        return (
            f"{sent}Authorization: AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope},"
            f" SignedHeaders={signed}, Signature={signature}\r\n"
        )

    def _key_of_day(self, secret: str, day: str, region: str) -> bytes:
        known, day_key = self._day_key
        if known != (secret, day, region):
            day_key = _hmac(f"AWS4{secret}".encode(), day)
            for part in (region, "s3", "aws4_request"):
                day_key = _hmac(day_key, part)
            self._day_key = ((secret, day, region), day_key)
        return day_key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def pattern_of(sent: SentRequest, key: str, keys: Keys) -> Pattern | None:
    """The pattern of a put of `key` that botocore made, or None when it can't be sure to be all of it."""
    scheme, host, port = sent.pool.scheme, sent.pool.host, sent.pool.port
    authorization = _text(sent.headers.get("Authorization"))
    scope = _SCOPE.match(authorization)
    if scope is None or not sent.path.endswith(f"/{key}") or "?" in sent.path:
        return None
    host = f"[{host}]" if ":" in host else host
    host = host if port == _DEFAULT_PORT[scheme] else f"{host}:{port}"
    pattern = Pattern(host, sent.path.removesuffix(key), scope[1])
    name = MD5 if _text(sent.headers.get(MD5)) else CRC32
    date, checksum = (_text(sent.headers.get(name)) for name in ("x-amz-date", name))
    ours = Signer().headers(pattern, key, date, checksum, keys, name)
    return pattern if ours.endswith(f"\r\nAuthorization: {authorization}\r\n") else None


def _text(value: str | bytes | None) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value or ""


class DirectPuts:
    """Puts by the pattern of botocore's last one. Threads may share it.

    Args:
        last: what botocore sent last in this thread.
        seconds: most that one attempt takes.
        now_s: Unix time.
    """

    def __init__(self, last: LastSent, seconds: float, now_s: Callable[[], float] = time.time) -> None:
        self._last = last
        self._seconds = seconds
        self._now_s = now_s
        self._signer = Signer()
        self._way: tuple[Pattern, Any] | None = None  # and the pool
        self._paused_until_s = 0.0

    def put(
        self, key: str, body: bytearray, checksum: str, keys: Keys | None, name: str = CRC32
    ) -> PutAnswer | None:
        """Try to store `body`, as `S3Store.put` would; `checksum` and `name` as in `Signer.headers`.

        Returns:
            What the store said once it had all of the body. None: it may be stored or not, put it in another way.
        """
        way = self._way
        if way is None or keys is None:
            return None
        pattern, pool = way
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now_s()))
        try:
            signed = self._signer.headers(pattern, key, date, checksum, keys, name)
            head = (
                f"PUT {pattern.root}{key} HTTP/1.1\r\n{signed}"
                f"User-Agent: clipkeep\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            return self._exchange(pool, head.encode("ascii"), body)
        except (OSError, HTTPError, ValueError):  # HTTPError: of the pool; ValueError: not a plain 200
            # In this order, so that nobody learns in between.
            self._paused_until_s, self._way = time.monotonic() + PAUSE_S, None
            return None

    def learn(self, key: str, keys: Keys | None) -> None:
        """Take the put of `key`, with which botocore just succeeded in this thread, for a pattern."""
        sent, self._last.request = self._last.request, None  # a pool that is known is not closed by urllib3
        if self._way is not None or sent is None or keys is None or time.monotonic() < self._paused_until_s:
            return
        pattern = pattern_of(sent, key, keys)
        if pattern is not None:
            self._way = (pattern, sent.pool)

    def close(self) -> None:
        """Close the idle connections."""
        way, self._way = self._way, None
        if way is not None:
            way[1].close()

    def forget(self) -> None:
        """Take no pattern from what was sent so far: puts go out in another way from now on."""
        self._way = None

    def _exchange(self, pool: Any, head: bytes, body: bytearray) -> PutAnswer | None:
        deadline_s = time.monotonic() + self._seconds
        connection = pool._get_conn()
        keeps = False
        try:
            if connection.sock is None:  # none is idle, or the server closed it: nothing was sent
                return None
            if send_until(deadline_s, connection.sock, head, body, may_lose=True):
                raise ValueError("answered before the body had left")
            fields = plain_200(receive_until(deadline_s, connection.sock))
            keeps = "close" not in fields.get("connection", "").lower()
            answer = PutAnswer(fields.get("etag", ""), fields.get(CRC32))
            if why := answer.why_not(len(body)):
                keeps = False
                raise ValueError(why)
            return answer
        finally:
            if not keeps:
                connection.close()
            pool._put_conn(connection)  # a closed one is connected again by who takes it


def receive_until(deadline_s: float, sock: socket.socket) -> bytes:
    """Receive up to the end of an answer's head; what came with it is kept.

    Raises:
        TimeoutError: it did not come by then.
        ValueError: it is cut short or too long.
        OSError: the peer is gone.
    """
    answer = b""
    while b"\r\n\r\n" not in answer:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no answer in time")
        sock.settimeout(left_s)
        piece = sock.recv(MAX_ANSWER_BYTES)
        answer += piece
        if not piece or len(answer) > MAX_ANSWER_BYTES:
            raise ValueError("not the head of an answer")
    return answer


def plain_200(answer: bytes) -> dict[str, str]:
    """The fields of a 200 without a body, by their names in lower case.

    Raises:
        ValueError: it is something else.
    """
    head, _, rest = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if (
        not status.startswith("HTTP/1.1 200 ")
        or rest
        or fields.get("content-length") != "0"
        or "transfer-encoding" in fields
    ):
        raise ValueError("not a plain 200")
    return fields
