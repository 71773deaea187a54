"""TLS on the API port: the same requests, a scheme that says so, and bounded handshakes."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
import trio

from ingest.handshakes import HandshakeLimits, Handshakes
from service.http import HttpServer
from tests.servers.certificates import Authority, server_context
from tests.service.http.served import GET, HANGS_S, Echo, answer, connect, lifespan, serving, until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    return server_context(authority.issue("clips.example"))


async def secure(server: HttpServer, authority: Authority) -> trio.SSLStream[trio.SocketStream]:
    stream = trio.SSLStream(
        await connect(server), authority.client(), server_hostname="clips.example", https_compatible=True
    )
    await stream.do_handshake()
    return stream


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    said = b""
    with trio.fail_after(HANGS_S):
        while data := await stream.receive_some(65_536):
            said += data
    return said


CLOSING = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


async def test_requests_come_and_say_that_they_came_over_tls(
    authority: Authority, context: ssl.SSLContext
) -> None:
    app = Echo()
    handshakes = Handshakes(lambda: context, HandshakeLimits())
    async with serving(app, handshakes=handshakes) as server:
        body = bytes(300_000)
        asked = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + body
        async with await secure(server, authority) as stream:
            await stream.send_all(asked + asked + CLOSING)
            said = await all_of(stream)
        assert said.count(b"HTTP/1.1 200") == 3
        assert app.bodies == [body, body, b""]
        assert {scope["scheme"] for scope in app.scopes} == {"https"}
        assert handshakes.outcomes == {"done": 1}


async def test_a_large_answer_reaches_a_reader_that_is_slow_to_begin(
    authority: Authority, context: ssl.SSLContext
) -> None:
    large = bytes(range(256)) * (32 * 1024)

    async def app(scope: object, receive: object, send: object) -> None:
        if scope["type"] == "lifespan":  # type: ignore[index]
            await lifespan(receive, send)
        else:
            await answer(send, large)

    async with serving(app, handshakes=Handshakes(lambda: context, HandshakeLimits())) as server:
        async with await secure(server, authority) as stream:
            await stream.send_all(CLOSING)
            await trio.sleep(0.3)
            said = await all_of(stream)
        assert said.partition(b"\r\n\r\n")[2] == large


@pytest.mark.parametrize("plain", [False, True])
async def test_clear_is_refused_or_taken(context: ssl.SSLContext, plain: bool) -> None:
    app = Echo()
    limits = HandshakeLimits(plain=plain)
    async with serving(app, handshakes=Handshakes(lambda: context, limits)) as server:
        async with await connect(server) as stream:
            await stream.send_all(CLOSING)
            said = await all_of(stream)
        if plain:
            assert said.startswith(b"HTTP/1.1 200")
            assert app.scopes[0]["scheme"] == "http"
        else:
            assert said.startswith(b"HTTP/1.1 400")
            assert b"tls_required" in said
            assert app.scopes == []


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
async def test_who_makes_no_handshake_is_gone_by_the_deadline(context: ssl.SSLContext, sent: bytes) -> None:
    handshakes = Handshakes(lambda: context, HandshakeLimits(handshake_s=0.2))
    async with serving(Echo(), handshakes=handshakes) as server:
        async with await connect(server) as stream:
            if sent:
                await stream.send_all(sent)
            with pytest.raises(trio.BrokenResourceError):
                await all_of(stream)
        assert handshakes.outcomes == {"timeout": 1}
        assert server.connections == 0


async def test_a_byte_now_and_then_does_not_put_the_deadline_off(context: ssl.SSLContext) -> None:
    handshakes = Handshakes(lambda: context, HandshakeLimits(handshake_s=0.5))
    async with serving(Echo(), handshakes=handshakes) as server:
        async with await connect(server) as stream:
            with trio.fail_after(HANGS_S), suppress(trio.BrokenResourceError):
                for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500):
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(0.05)
        assert handshakes.outcomes == {"timeout": 1}
        assert server.connections == 0


@pytest.mark.parametrize("kind", ["noise", "records of noise", "records of nothing", "an endless hello"])
async def test_garbage_ends_at_once(context: ssl.SSLContext, kind: str) -> None:
    sent = {
        "noise": bytes(range(128, 256)) * 100,
        "records of noise": b"\x16\x03\x01\x00\x80" + bytes(range(128)),
        "records of nothing": b"\x16\x03\x01\x00\x00" * 20_000,
        "an endless hello": (b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16 * 1024 - 4)) * 8,
    }[kind]
    app = Echo()
    handshakes = Handshakes(lambda: context, HandshakeLimits(handshake_s=600))
    async with serving(app, handshakes=handshakes) as server:
        async with await connect(server) as stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(sent)
                await all_of(stream)
        await until(lambda: server.connections == 0)
    assert handshakes.outcomes == {"failed": 1}
    assert app.scopes == []


async def test_a_stop_ends_handshakes(context: ssl.SSLContext) -> None:
    handshakes = Handshakes(lambda: context, HandshakeLimits(handshake_s=600))
    async with serving(Echo(), handshakes=handshakes) as server:
        stream = await connect(server)
        while not handshakes.under_way:  # noqa: ASYNC110
            await trio.sleep(0.001)
    await stream.aclose()


# --- the PROXY protocol -------------------------------------------------------------------------------------------

SAID = b"PROXY TCP4 203.0.113.9 192.0.2.1 5000 443\r\n"


def proxied(context: ssl.SSLContext | None) -> Handshakes:
    return Handshakes(
        None if context is None else lambda: context,
        HandshakeLimits(handshake_s=0.5),
        lambda address: address == "127.0.0.1",
    )


@pytest.mark.parametrize("tls", [False, True])
async def test_who_asks_is_whom_the_proxy_names(
    authority: Authority, context: ssl.SSLContext, tls: bool
) -> None:
    app = Echo()
    forged = CLOSING.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n")
    async with serving(app, "127.0.0.1", proxied(context if tls else None)) as server:
        stream = await connect(server)
        await stream.send_all(SAID[:10])
        await trio.sleep(0.1)
        await stream.send_all(SAID[10:])
        wire: trio.abc.Stream = stream
        if tls:
            wire = trio.SSLStream(
                stream, authority.client(), server_hostname="clips.example", https_compatible=True
            )
        async with wire:
            await wire.send_all(forged)
            assert (await all_of(wire)).startswith(b"HTTP/1.1 200")
    [scope] = app.scopes
    assert scope["client"] == ("203.0.113.9", 5000)
    assert scope["scheme"] == ("https" if tls else "http")


@pytest.mark.parametrize("sent", [CLOSING, b"PROXY TCP4 a b 1 2\r\n", b"PRO", b""])
async def test_a_proxy_that_does_not_say_it_is_cut_off(sent: bytes) -> None:
    app = Echo()
    handshakes = proxied(None)
    async with serving(app, "127.0.0.1", handshakes) as server, await connect(server) as stream:
        if sent:
            await stream.send_all(sent)
        with pytest.raises(trio.BrokenResourceError):
            await all_of(stream)
    assert app.scopes == []
    expected = "not_proxied" if sent in (CLOSING, b"PROXY TCP4 a b 1 2\r\n") else "timeout"
    assert handshakes.outcomes == {expected: 1}
