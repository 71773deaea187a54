"""One HTTP request and its answer, over a connection of its own, with bounds: time to connect, time in all, bytes.

`http.client` alone has a time-out for each receive, so an answer that comes a byte at a time holds its thread for as
long as the other side likes. Here one deadline is for all of it. Nothing is followed, and nothing is sent twice.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import cast
from urllib.parse import SplitResult, urlsplit

from storage.errors import CallerError
from storage.urls import masked_url

MAX_HEAD_BYTES = 16 * 1024
"""Of an answer: as much as servers allow of a request by default."""
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_SENDABLE = re.compile(r"[!-~]+")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Lost(Exception):
    """There is no answer, or none that can be read. What was asked for may have been done."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one request.

    Args:
        connect_s: to have a connection, TLS included.
        answer_s: for all of it.
        max_bytes: of the answer's body.
    """

    connect_s: float
    answer_s: float
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Args:
    headers: by name in lower case; of several of one name the last.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Endpoint:
    """Where a gateway is asked.

    Args:
        url: https://; http:// only on this machine, since amounts and names of methods go over it.
        ca_file: of the authority that signed its certificate; "": those that the system trusts.

    Raises:
        CallerError: `bad_config`.
    """

    def __init__(
        self, url: str, bounds: Bounds, *, ca_file: str = "", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = _address(url)
        self._bounds = bounds
        self._monotonic = monotonic
        self._tls = None
        if self._url.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=ca_file or None)
            except (OSError, ssl.SSLError) as error:
                raise CallerError(
                    f"[payments] ca_file can't be used: {error}", subject=ca_file, code="bad_config"
                ) from error

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Raises Lost."""
        ends_s = self._monotonic() + self._bounds.answer_s
        try:
            with closing(self._connected(min(ends_s, self._monotonic() + self._bounds.connect_s))) as link:
                link.settimeout(self._left(ends_s))
                link.sendall(self._head(method, path, headers, body) + body)
                return self._answer(link, ends_s)
        except TimeoutError as error:
            raise Lost(f"no answer within {self._bounds.answer_s:g} s") from error
        except (
            HTTPException,
            OSError,
            ValueError,
            OverflowError,
        ) as error:  # the last: a length beyond any memory
            raise Lost(str(error)[:200] or type(error).__name__) from error

    def _left(self, ends_s: float) -> float:
        left = ends_s - self._monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _connected(self, ends_s: float) -> socket.socket:
        host, port = self._url.hostname or "", self._url.port or (443 if self._tls else 80)
        failure: OSError = OSError(f"no address for {host}")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for place, (family, kind, protocol, _, address) in enumerate(found):
            link = socket.socket(family, kind, protocol)
            try:
                # One that swallows packets, as IPv6 without a way does, leaves as much time to each of the others.
                link.settimeout(self._left(ends_s) / (len(found) - place))
                link.connect(address)
                return link if self._tls is None else self._tls.wrap_socket(link, server_hostname=host)
            except OSError as error:
                link.close()
                failure = error
        raise failure

    def _head(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        lines = {
            "Host": self._url.netloc.rpartition("@")[2],
            "Connection": "close",
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **headers,
        }
        target = self._url.path.rstrip("/") + path
        assert _SENDABLE.fullmatch(target), "what is asked for has checked references"
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("ascii")

    def _answer(self, link: socket.socket, ends_s: float) -> Answer:
        """Read until it is whole by its length, or the other side has closed, as it was asked to."""
        raw = bytearray()
        wanted = None
        while wanted is None or len(raw) < wanted:
            link.settimeout(self._left(ends_s))
            data = link.recv(65536)
            if not data:
                break
            raw += data
            end = raw.find(_HEAD_END) if wanted is None else -1
            if end >= 0 and (length := _LENGTH.search(raw[: end + 2])):
                wanted = end + len(_HEAD_END) + int(length[1])
            if max(len(raw), wanted or 0) > MAX_HEAD_BYTES + self._bounds.max_bytes:
                raise Lost(f"an answer of more than {self._bounds.max_bytes} bytes")
        return _parsed(bytes(raw), self._bounds.max_bytes)


def _parsed(raw: bytes, max_bytes: int) -> Answer:
    class Read:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(raw)

    response = HTTPResponse(cast(socket.socket, Read()))
    response.begin()
    body = response.read()  # IncompleteRead, of a body that was cut, is an HTTPException
    if len(body) > max_bytes:
        raise Lost(f"an answer of more than {max_bytes} bytes")
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def _address(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        if (
            _SENDABLE.fullmatch(text)
            and url.hostname
            and url.port != 0
            and not (url.query or url.fragment or url.username)
            and (url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK))
        ):
            return url
    except ValueError:
        pass
    raise CallerError(
        f"[payments] url: {masked_url(text)[:100]!r} is no https:// address of a payment gateway (http:// on this"
        " machine only; in ASCII, without user, query or fragment)",
        code="bad_config",
    )
