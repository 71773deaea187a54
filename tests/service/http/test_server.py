"""The server over real sockets: what its clients may do, and what they may not make it hold."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from service.http import HttpLimits, HttpServer
from tests.service.http.served import (
    GET,
    Echo,
    answer,
    ask,
    connect,
    lifespan,
    read_until,
    rest_of,
    serving,
    until,
)

MIB = 1 << 20


async def test_one_request_after_the_other_in_their_order() -> None:
    app = Echo()
    async with serving(app) as server:
        found = await ask(
            server,
            GET,
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n"
            b"GET /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            GET,
        )
    assert found.count(b"HTTP/1.1 200 OK") == 4, "nothing behind Connection: close is answered"
    for body in (b"GET / ", b"POST /a abc", b"POST /b xy", b"GET /c "):
        assert body in found
    assert found.count(b"connection: close") == 1
    assert app.bodies == [b"", b"abc", b"xy", b""]
    assert app.ended


async def test_a_refusal_is_a_problem_and_ends_the_connection() -> None:
    app = Echo()
    async with serving(app) as server:
        found = await ask(
            server,
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            GET,
        )
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    for line in (
        b"content-type: application/problem+json",
        b"x-content-type-options: nosniff",
        b"x-frame-options: DENY",
        b"connection: close",
        b"date: Thu, 01 Jan 1970 00:00:00 GMT",
    ):
        assert line in head.split(b"\r\n")
    assert b'"error": "malformed"' in body
    assert not app.scopes


async def test_http_1_0_and_what_it_keeps_alive() -> None:
    async with serving(Echo()) as server:
        once = await ask(server, b"GET / HTTP/1.0\r\n\r\n", GET)
        assert once.count(b"HTTP/1.1 200") == 1
        assert b"connection: close" in once
        kept = await ask(server, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n")
        assert kept.count(b"HTTP/1.1 200") == 2
        assert b"connection: keep-alive" in kept


async def test_continue_is_said_when_the_body_is_wanted() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    async with serving(Echo()) as server, await connect(server) as stream:
        await stream.send_all(head)
        assert await read_until(stream, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"abc")
        assert b"POST / abc" in await read_until(stream, b"abc")
        await stream.send_all(head + b"abc")
        assert b"100 Continue" not in await read_until(stream, b"abc"), "it had not waited"
        old = await ask(server, head.replace(b"1.1", b"1.0") + b"abc")
        assert b"100 Continue" not in old


async def test_a_body_that_nobody_reads_ends_the_connection_but_not_the_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        await answer(send, b"no", status=413)

    async with serving(app, linger_close_s=5) as server, await connect(server) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n")
        for _ in range(128):
            await stream.send_all(bytes(65536))
        await stream.send_eof()
        found = await rest_of(stream)
    assert found.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in found


async def test_an_answer_that_breaks_off_does_not_look_whole() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        if scope["path"] == "/short":
            return await answer(send, b"abc", length=5)
        if scope["path"] == "/raises":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
            raise RuntimeError("boom")
        if scope["path"] == "/nothing":
            return None
        if scope["path"] == "/splits":
            return await answer(send, b"", (b"location", b"/\r\nSet-Cookie: a=b"))
        raise RuntimeError("boom")

    async with serving(app) as server:
        with structlog.testing.capture_logs():
            for path in (b"short", b"raises"):
                found = await ask(server, b"GET /" + path + b" HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
                assert found.count(b"HTTP/1.1 200") == 1, "the connection is over"
                assert not found.endswith(b"0\r\n\r\n")
            for path in (b"nothing", b"splits", b"boom"):
                found = await ask(server, b"GET /" + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                assert found.startswith(b"HTTP/1.1 500"), path
                assert b"Set-Cookie" not in found
        assert server.failures == 3


async def test_heads_and_answers_without_a_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        if scope["method"] == "HEAD":
            return await answer(send, b"", length=100)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": False})

    async with serving(app) as server:
        found = await ask(server, GET.replace(b"GET", b"HEAD"), GET)
    head, _, rest = found.partition(b"\r\n\r\n")
    assert b"content-length: 100" in head
    assert rest.startswith(b"HTTP/1.1 200"), "a HEAD has no body"
    assert rest.partition(b"\r\n\r\n")[2] == b"3\r\nabc\r\n186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n"


# --- the slow and the silent -----------------------------------------------------------------------------------------


async def test_deadlines_of_heads_bodies_and_idle_connections() -> None:
    async with serving(Echo(), head_timeout_s=0.1, body_timeout_s=0.1, idle_timeout_s=0.1) as server:
        assert await ask(server, end=False) == b""
        assert (await ask(server, b"GET / HT", end=False)).startswith(b"HTTP/1.1 408")
        late = await ask(server, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na", end=False)
        assert late.startswith(b"HTTP/1.1 408")
        assert b"too_slow" in late
        await until(lambda: server.connections == 0)


class Holding:
    """Answers with many bytes, and knows how many it holds: what a chunk of a recording is."""

    def __init__(self, size: int) -> None:
        self._body = bytes(size)
        self.held = 0
        self.most_held = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        self.held += 1
        self.most_held = max(self.held, self.most_held)
        try:
            await answer(send, self._body)
        finally:
            self.held -= 1


async def test_what_an_answer_holds_comes_back_however_its_client_ends() -> None:
    app = Holding(16 * MIB)
    async with serving(app, send_grace_s=3600) as server:
        for end in ("reset", "close", "half-close"):
            stream = await connect(server)
            await stream.send_all(GET)
            await read_until(stream, b"\r\n\r\n")
            assert app.held == 1
            if end == "reset":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            elif end == "half-close":
                await stream.send_eof()
                assert len(await rest_of(stream)) > 15 * MIB, "who sends no more may still read"
            await stream.aclose()
            await until(lambda: not app.held and not server.connections)


async def test_a_client_that_does_not_read_is_let_go() -> None:
    app = Holding(16 * MIB)
    async with serving(app, send_grace_s=0.2) as server, await connect(server) as stream:
        await stream.send_all(GET)
        await until(lambda: app.most_held and not app.held)
        assert server.let_go == 1


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_an_idle_connection_makes_way_for_a_new_one() -> None:
    async with serving(Echo(), max_connections=8, client_share=1.0) as server:
        idle = [await connect(server) for _ in range(8)]
        await until(lambda: server.connections == 8)
        for _ in range(3):
            assert b"200 OK" in await ask(server, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert server.connections <= 8
        for stream in idle:
            await stream.aclose()


async def test_connections_of_a_named_proxy_have_no_share_and_their_requests_have() -> None:
    held: dict[str, int] = {}
    go_on = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        held[scope["client"][0]] = held.get(scope["client"][0], 0) + 1
        await go_on.wait()
        await answer(send, b"done")

    def asked_by(address: str) -> bytes:
        return GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: %s\r\n\r\n" % address.encode())

    async with serving(app, proxies="127.0.0.1", max_connections=8, requests_at_once=4) as server:
        streams = [await connect(server) for _ in range(8)]
        await until(lambda: server.connections == 8)
        for stream in streams[:7]:
            await stream.send_all(asked_by("203.0.113.1"))
        await until(lambda: held)
        await streams[7].send_all(asked_by("203.0.113.2"))
        await until(lambda: "203.0.113.2" in held)
        assert held["203.0.113.1"] <= 2, "half of what others leave"
        go_on.set()
        for stream in streams:
            await read_until(stream, b"done")
            await stream.aclose()


async def test_a_header_of_somebody_who_is_no_named_proxy_changes_nothing() -> None:
    app = Echo()
    async with serving(app, proxies="10.0.0.0/8") as server:
        await ask(server, GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n"))
    assert app.scopes[0]["client"][0] == "127.0.0.1"


async def test_too_many_busy_connections() -> None:
    app = Holding(4 * MIB)
    async with serving(app, max_connections=8, client_share=1.0, send_grace_s=60) as server:
        busy = [await connect(server, receive_buffer=8192) for _ in range(8)]
        for stream in busy:
            await stream.send_all(GET)
        await until(lambda: app.held == 8)
        async with await connect(server) as late:
            assert (await rest_of(late)).startswith(b"HTTP/1.1 503")
        for stream in busy:
            await stream.aclose()
        await until(lambda: server.connections == 0)


async def test_one_client_has_its_share_of_the_connections() -> None:
    def addressed(server: HttpServer, host: str) -> socket.socket:
        sock = socket.create_connection(server.address, source_address=(host, 0))
        sock.sendall(b"GET")  # not idle: nothing makes way
        return sock

    async with serving(Echo(), max_connections=8) as server:
        mine = [addressed(server, "127.0.0.1") for _ in range(8)]
        await until(lambda: server.connections == 4)
        others = [addressed(server, "127.0.0.2") for _ in range(8)]
        await until(lambda: server.connections == 6)
        third = addressed(server, "127.0.0.3")
        await until(lambda: server.connections == 7)
        for sock in (*mine, *others, third):
            sock.close()
        await until(lambda: server.connections == 0)
        assert not server._by_client


async def test_at_its_share_a_client_gives_up_its_own_idle_connection() -> None:
    async with serving(Echo(), max_connections=8) as server:
        idle = []
        for _ in range(4):
            idle.append(await connect(server))
            await until(lambda: server.connections == len(idle))
            await trio.testing.wait_all_tasks_blocked()  # those that are accepted at once wait as long
        assert b"200 OK" in await ask(server, GET)
        assert await rest_of(idle[0]) == b"", "the longest idle one"
        for stream in idle:
            await stream.aclose()


async def test_out_of_files_is_one_line_and_heals() -> None:
    class Full(socket.socket):
        left = 3

        def accept(self) -> Any:
            if Full.left:
                Full.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    server = HttpServer(Echo(), HttpLimits(linger_close_s=0.1))
    listener = Full()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, listener)
            async with await connect(server) as stream:
                await stream.send_all(GET)
                await read_until(stream, b"GET / ")
            server.stop()
    assert [entry["event"] for entry in logs] == ["cannot_accept"]


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_a_stop_sends_what_is_under_way_to_its_end() -> None:
    app = Holding(8 * MIB)
    async with serving(app) as server:
        idle, busy = await connect(server), await connect(server, receive_buffer=8192)
        await busy.send_all(GET)
        await until(lambda: app.held)
        server.stop()
        assert await rest_of(idle) == b""
        found = await rest_of(busy)
        assert len(found.partition(b"\r\n\r\n")[2]) == 8 * MIB
        with pytest.raises(OSError, match=r"refused|failed"):
            await connect(server)
        for stream in (idle, busy):
            await stream.aclose()
