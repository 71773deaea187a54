"""Heads that no port of ours answers: what two programs could read differently, and what is no HTTP/1.1.

Each begins a stream; what stands behind it here is its body, if it has one. Both ports refuse each with 400.
"""

from __future__ import annotations


def head(lines: bytes = b"", first: bytes = b"PUT /a?b HTTP/1.1") -> bytes:
    return first + b"\r\nHost: a\r\n" + lines + b"\r\n"


_FIRST_LINES = {
    "HTTP/1.2": b"GET / HTTP/1.2",
    "HTTP/1.10": b"GET / HTTP/1.10",
    "HTTP/1": b"GET / HTTP/1",
    "HTTP/2.0": b"GET / HTTP/2.0",
    "HTTP/0.9": b"GET /",
    "http/1.1": b"GET / http/1.1",
    "RTSP": b"OPTIONS / RTSP/1.0",
    "another method of RTSP": b"ANNOUNCE rtsp://a/ RTSP/1.0",
    "an upload of another protocol": b"PUT /v1/devices/1/chunks/1 RTSP/1.0",
    "ICE": b"SOURCE / ICE/1.0",
    "two spaces before the target": b"GET  / HTTP/1.1",
    "two spaces before the target of an upload": b"PUT  /v1/devices/1/chunks/1 HTTP/1.1",
    "two spaces before the version": b"GET /  HTTP/1.1",
    "a space before the method": b" GET / HTTP/1.1",
    "a space at the end": b"GET / HTTP/1.1 ",
    "a space in the target": b"GET /a b HTTP/1.1",
    "two versions": b"GET / HTTP/1.1 HTTP/1.1",
    "no target": b"GET HTTP/1.1",
    "nothing as a target": b"GET  HTTP/1.1",
    "a tab": b"GET\t/ HTTP/1.1",
    "a tab before the version": b"GET /\tHTTP/1.1",
    "a CR in the line": b"GET /\r HTTP/1.1",
    "a CR at its end": b"GET / HTTP/1.1\r",
    "a CR before it": b"\rGET / HTTP/1.1",
    "an LF before it": b"\nGET / HTTP/1.1",
    "an unknown method": b"FETCH / HTTP/1.1",
    "a method in small letters": b"get / HTTP/1.1",
    "a method with a digit": b"PUT1 / HTTP/1.1",
    "a long method": b"P" * 30 + b" / HTTP/1.1",
    "CONNECT": b"CONNECT a:80 HTTP/1.1",
    "no path": b"GET a HTTP/1.1",
    "an authority": b"GET a:80 HTTP/1.1",
    "a star": b"OPTIONS * HTTP/1.1",
    "another scheme": b"GET ftp://a/ HTTP/1.1",
    "a fragment": b"PUT /v1/devices/1/chunks/1?a#b HTTP/1.1",
    "bytes that are no ASCII": b"GET /\xc3\xa4 HTTP/1.1",
    "a NUL in the target": b"GET /\0 HTTP/1.1",
}
_LINES = {
    "length and transfer-encoding": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    "transfer-encoding and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n",
    "the same length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n",
    "a list of lengths": b"Content-Length: 3, 3\r\n",
    "a signed length": b"Content-Length: +3\r\n",
    "a negative length": b"Content-Length: -3\r\n",
    "a hexadecimal length": b"Content-Length: 0x3\r\n",
    "a length with an underscore": b"Content-Length: 1_0\r\n",
    "a length with a space": b"Content-Length: 1 0\r\n",
    "a length behind a control character": b"Content-Length: \x0b3\r\n",
    "an empty length": b"Content-Length:\r\n",
    "a length beyond 64 bits": b"Content-Length: 18446744073709551616\r\n",
    "a length before a space": b"Content-Length : 3\r\n",
    "a folded length": b"Content-Length:\r\n 3\r\n",
    "an unknown coding": b"Transfer-Encoding: gzip\r\n",
    "no coding": b"Transfer-Encoding: identity\r\n",
    "an empty coding": b"Transfer-Encoding:\r\n",
    "a quoted coding": b'Transfer-Encoding: "chunked"\r\n',
    "a coding with a parameter": b"Transfer-Encoding: chunked;a=b\r\n",
    "two codings": b"Transfer-Encoding: gzip, chunked\r\n",
    "a list that begins with nothing": b"Transfer-Encoding: ,chunked\r\n",
    "chunked twice": b"Transfer-Encoding: chunked, chunked\r\n",
    "chunked in two headers": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "chunked behind a control character": b"Transfer-Encoding: \x0bchunked\r\n",
    "a bare CR": b"X: a\rb\r\n",
    "a CR before the CR": b"X: a\r\r\n",
    "a bare LF": b"X: a\nY: b\r\n",
    "a folded header": b"X: a\r\n b\r\n",
    "a header folded by a tab": b"X: a\r\n\tb\r\n",
    "a NUL in a value": b"X: a\0b\r\n",
    "a control character in a value": b"X: a\x01b\r\n",
    "no name": b": x\r\n",
    "no colon": b"Host\r\n",
    "a space before the colon": b"X : a\r\n",
    "a space in a name": b"X Y: a\r\n",
    "a tab in a name": b"X\tY: a\r\n",
    "a CR in a name": b"X\r: a\r\n",
    "a bracket in a name": b"X(y): a\r\n",
    "a name that is no ASCII": b"X\xc3\xa4: a\r\n",
    "two hosts": b"Host: b\r\n",
    "the same host twice": b"host: a\r\n",
    "two authorizations": b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
    "the same authorization twice": b"Authorization: a\r\nauthorization: a\r\n",
    "an authorization behind an empty one": b"Authorization:\r\nAuthorization: a\r\n",
    "two expectations": b"Expect: 100-continue\r\nExpect: 100-continue\r\n",
}
MALFORMED_HEADS: dict[str, bytes] = {
    **{name: head(first=line) for name, line in _FIRST_LINES.items()},
    **{name: head(lines) for name, lines in _LINES.items()},
    "chunked in HTTP/1.0": head(b"Transfer-Encoding: chunked\r\n", b"PUT / HTTP/1.0"),
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "a bare line feed that ends a head": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a space before the first header": b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "noise": b"\xff\xfe\x00",
}
"""By what is wrong with them."""

SOUND_HEADS: dict[str, bytes] = {
    "empty lines before it": b"\r\n\r\n" + head(),
    "spaces around a length": head(b"Content-Length: \t 3 \t\r\n"),
    "spaces before a coding": head(b"Transfer-Encoding: \t chunked\r\n"),
    "a coding in capitals": head(b"Transfer-Encoding: CHUNKED\r\n"),
    "no space before a value": head(b"X:y\r\n"),
    "an empty value": head(b"X:\r\n"),
    "bytes of another character set in a value": head(b"X: \xfc\r\n"),
    "absolute form": head(first=b"PUT http://a:1/b HTTP/1.1"),
    "HTTP/1.0 without a host": b"PUT / HTTP/1.0\r\n\r\n",
    "an offer to upgrade": head(
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"
    ),
}
"""What is unusual, and read by both ports all the same."""
