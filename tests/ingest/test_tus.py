"""What tus 1.0 says of requests and answers, and pages of other origins: by tables, through a worker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ingest.protocols.cors import origins_of
from tests.ingest.conftest import Begin
from tests.ingest.resumable.test_requests import (
    DATA,
    UPLOADS,
    ask,
    begun,
    call,
    go_on,
    head,
    metadata,
    offset,
)
from tests.ingest.served import PATIENT, Worker
from tests.ingest.world import NOW_MS

PAGE = "https://shop.example"
BYTES = "application/offset+octet-stream"


async def test_what_is_spoken_is_said_to_whoever_asks(worker: Worker) -> None:
    client = await worker.connect()
    await client.send(f"OPTIONS {UPLOADS} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    reply = await client.reply()
    assert (reply.status, reply.body) == (204, b"")
    assert {name: reply.headers[name] for name in reply.headers if name.startswith("tus-")} == {
        "tus-resumable": "1.0.0",
        "tus-version": "1.0.0",
        "tus-extension": "creation,creation-with-upload,expiration,checksum,termination",
        "tus-max-size": str(256 * 1024 * 1024),
        "tus-checksum-algorithm": "sha1,sha256",
    }


@pytest.mark.parametrize(
    ("version", "status"), [("1.0.0", 201), ("0.2.2", 412), ("1.0", 412), ("2.0.0", 412), (None, 412)]
)
async def test_of_another_version_nothing_is_done(worker: Worker, version: str | None, status: int) -> None:
    client = await worker.connect()
    said = b"" if version is None else f"Tus-Resumable: {version}\r\n".encode()
    wire = call(worker, "POST", UPLOADS, Upload_Length="5").replace(b"Tus-Resumable: 1.0.0\r\n", said)
    await client.send(wire)
    reply = await client.reply()
    assert reply.status == status
    assert reply.headers["tus-resumable"] == "1.0.0"
    assert reply.headers.get("tus-version") == (None if status == 201 else "1.0.0")


@pytest.mark.parametrize(
    ("method", "path", "said", "code"),
    [
        ("POST", UPLOADS, {"token": "wrong"}, "bad_token"),
        ("POST", UPLOADS, {"Upload_Length": "x"}, "malformed"),
        ("POST", UPLOADS, {"Upload_Length": "0"}, "empty"),
        ("POST", UPLOADS, {"Upload_Length": "99999999999"}, "too_large"),
        ("PUT", UPLOADS, {"Upload_Length": "5"}, "not_found"),
        ("PATCH", f"{UPLOADS}/abc", {"Upload_Offset": "0", "Content_Type": BYTES}, "no_upload"),
        ("DELETE", f"{UPLOADS}/abc", {}, "no_upload"),
        ("POST", "/v1/devices/99/uploads", {"Upload_Length": "5"}, "bad_token"),
    ],
)
async def test_refusals_say_the_version_too(
    worker: Worker, method: str, path: str, said: dict[str, str], code: str
) -> None:
    client = await worker.connect()
    reply = await ask(client, method, path, **({"Upload_Length": "5"} | said))
    assert (reply.code, reply.headers["tus-resumable"]) == (code, "1.0.0")


async def test_refusals_that_come_later_say_it_too(begin: Begin) -> None:
    """Those of a body that goes on too far, of one that is too slow, and of a server that is full."""
    worker = await begin(limits=replace(PATIENT, body_grace_s=0.1))
    client = await worker.connect()
    path = await begun(client)
    reply = await go_on(client, path, 0, DATA + b"x", chunked=True)
    assert (reply.code, reply.headers["tus-resumable"]) == ("too_large", "1.0.0")
    client = await worker.connect()
    await client.send(call(worker, "PATCH", path, b"x", length=50_000, Upload_Offset="0"))
    reply = await client.reply()
    assert (reply.code, reply.headers["tus-resumable"]) == ("too_slow", "1.0.0")


async def test_other_requests_say_nothing_of_it(worker: Worker) -> None:
    client = await worker.connect()
    assert "tus-resumable" not in (await client.ask(DATA)).headers
    reply = await client.ask(DATA, Tus_Resumable="1.0.0", X_HTTP_Method_Override="DELETE")
    assert (reply.status, "tus-resumable" in reply.headers) == (200, False)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (BYTES, 204),
        ("Application/Offset+Octet-Stream ; x=y", 204),
        ("application/octet-stream", 415),
        ("video/mp2t", 415),
        ("", 415),
        (None, 415),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "POST"])
async def test_bytes_come_as_one_type_alone(
    worker: Worker, method: str, kind: str | None, status: int
) -> None:
    client = await worker.connect()
    said = {"Content_Type": kind or "x"}
    if method == "PATCH":
        wire = call(worker, method, await begun(client), DATA[:100], Upload_Offset="0", **said)
    else:
        wire = call(worker, method, UPLOADS, DATA[:100], Upload_Length=str(len(DATA)), **said)
        status = 201 if status == 204 else status
    if not kind:
        wire = wire.replace(b"Content-Type: x\r\n", b"" if kind is None else b"Content-Type:\r\n")
    await client.send(wire)
    reply = await client.reply()
    assert (reply.status, reply.code) == (status, "content_type" if status == 415 else "")


async def test_a_creation_without_bytes_is_of_any_type(worker: Worker) -> None:
    client = await worker.connect()
    reply = await ask(client, "POST", UPLOADS, Upload_Length="5", Content_Type="text/plain")
    assert reply.status == 201


@pytest.mark.parametrize("said", [{}, {"Upload_Length": "5"}])
async def test_a_length_that_is_said_later_is_refused(worker: Worker, said: dict[str, str]) -> None:
    client = await worker.connect()
    reply = await ask(client, "POST", UPLOADS, Upload_Defer_Length="1", **said)
    assert (reply.status, reply.code) == (400, "length_deferred")


@pytest.mark.parametrize(
    ("said", "good"),
    [
        ("filename YS50cw==", True),
        ("filename YS50cw==,is_confidential", True),
        ("filename YS50cw==, other ", True),
        ("YS50cw==", True),
        (",", False),
        ("filename YS50cw==,", False),
        (" ,filename YS50cw==", False),
        ("filename YS50cw==,filename YS50cw==", False),
        ("filename a.ts", False),
        ("filename YS50cw", False),
        ("filename YS50cw== YS50cw==", False),
        ("filename  YS50cw==", False),
    ],
)
async def test_the_form_of_metadata(worker: Worker, said: str, good: bool) -> None:
    client = await worker.connect()
    reply = await ask(client, "POST", UPLOADS, Upload_Length="5", Upload_Metadata=said)
    assert (reply.status, reply.code) == ((201, "") if good else (400, "malformed"))


async def test_until_when_it_can_go_on_is_said_each_time(worker: Worker) -> None:
    client = await worker.connect()
    reply = await ask(client, "POST", UPLOADS, Upload_Length=str(len(DATA)))
    told = {reply.headers["upload-expires"]}
    path = reply.headers["location"]
    for at, code in ((0, ""), (0, "offset_mismatch"), (100, "")):
        reply = await go_on(client, path, at, DATA[at : at + 100])
        assert reply.code == code
        told.add(reply.headers["upload-expires"])
    told.add((await head(client, path)).headers["upload-expires"])
    assert len(told) == 1
    assert told.pop().endswith(" 00:00:00 GMT")


async def test_what_an_upload_is_asked_about_is_kept_nowhere_on_the_way(worker: Worker) -> None:
    client = await worker.connect()
    path = await begun(client)
    reply = await head(client, path)
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["upload-length"] == str(len(DATA))
    assert reply.headers["upload-metadata"] == metadata(capture_ms=NOW_MS)
    reply = await head(client, await begun(client, capture_ms=None))
    assert "upload-metadata" not in reply.headers
    wrong = await head(client, f"{UPLOADS}/abc")
    assert (wrong.status, "upload-offset" in wrong.headers) == (404, False)


@pytest.mark.parametrize("sent", ["POST", "PUT", "GET"])
async def test_a_method_that_overrides_is_the_method(worker: Worker, sent: str) -> None:
    client = await worker.connect()
    path = await begun(client)
    said = {"Upload_Offset": "0", "X_HTTP_Method_Override": "PATCH"}
    assert (await ask(client, sent, path, DATA[:100], **said)).status == 204
    assert await offset(client, path) == 100
    reply = await ask(client, sent, path, X_HTTP_Method_Override="HEAD")
    assert (reply.status, reply.headers["upload-offset"], reply.body) == (200, "100", b"")
    reply = await ask(client, sent, path, DATA[100:200], **(said | {"Content_Type": "text/plain"}))
    assert reply.code == "content_type"
    assert (await ask(client, sent, path, X_HTTP_Method_Override="DELETE")).status == 204
    assert (await head(client, path)).status == 410
    assert (await ask(client, sent, path, X_HTTP_Method_Override="BREW")).code == "not_found"


async def test_an_answer_to_head_has_no_body_whatever_overrides(worker: Worker) -> None:
    client = await worker.connect()
    path = await begun(client)
    await client.send(call(worker, "HEAD", path, X_HTTP_Method_Override="DELETE"))
    assert (await client.reply(of_head=True)).headers["upload-offset"] == "0"
    assert await offset(client, path) == 0


@pytest.mark.parametrize("name", ["Content-Type", "Origin", "X-HTTP-Method-Override"])
async def test_what_counts_here_comes_once(worker: Worker, name: str) -> None:
    client = await worker.connect()
    wire = call(worker, "POST", UPLOADS, Upload_Length="5")
    twice = f"{name}: a\r\n{name}: b\r\n\r\n".encode()
    await client.send(wire.replace(b"\r\n\r\n", b"\r\n" + twice))
    assert (await client.reply()).code == "malformed"
    client = await worker.connect()
    wire = client.request(DATA).replace(b"\r\n\r\n", b"\r\n" + twice, 1)
    await client.send(wire)
    assert (await client.reply()).status == 201, "elsewhere it means nothing"


# --- pages of other origins ---------------------------------------------------------------------------------------


def preflight(path: str, origin: str) -> bytes:
    return (
        f"OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PATCH\r\n"
        "Access-Control-Request-Headers: authorization,content-type,tus-resumable,upload-offset\r\n\r\n"
    ).encode()


def of_cors(headers: dict[str, str]) -> set[str]:
    return {name for name in headers if name.startswith("access-control-")} | ({"vary"} & set(headers))


async def test_by_default_no_page_of_another_origin_is_answered_to(worker: Worker) -> None:
    client = await worker.connect()
    await client.send(preflight(UPLOADS, PAGE))
    reply = await client.reply()
    assert (reply.status, of_cors(reply.headers)) == (204, set())
    reply = await ask(client, "POST", UPLOADS, Upload_Length="5", Origin=PAGE)
    assert (reply.status, of_cors(reply.headers)) == (201, set())


@pytest.mark.parametrize(
    "origin", [PAGE, "https://other.example", "null", "HTTPS://SHOP.EXAMPLE", f"{PAGE}:8443"]
)
async def test_only_pages_of_named_origins_are(begin: Begin, origin: str) -> None:
    worker = await begin(limits=replace(PATIENT, cors_origins=f"{PAGE}, http://127.0.0.1:1"))
    is_named = origin == PAGE
    client = await worker.connect()
    await client.send(preflight("/v1/devices/99/uploads", origin))  # who asks is not looked up: there is none
    reply = await client.reply()
    assert (reply.status, reply.headers["vary"]) == (204, "Origin")
    if is_named:
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "PATCH" in reply.headers["access-control-allow-methods"]
        assert "Upload-Offset" in reply.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in reply.headers
    else:
        assert of_cors(reply.headers) == {"vary"}
    assert worker.receiver.strangers.make_room(), "who only asked so is a stranger still"
    client = await worker.connect()
    said = {"Upload_Length": "5", "Origin": origin}
    for reply in (
        await ask(client, "POST", UPLOADS, **said),
        await ask(client, "POST", UPLOADS, token="wrong", **said),
        await ask(client, "PUT", UPLOADS, **said),
        await ask(client, "PATCH", f"{UPLOADS}/abc", Origin=origin, Content_Type="text/plain"),
    ):
        assert reply.headers["vary"] == "Origin"
        assert reply.headers.get("access-control-allow-origin") == (PAGE if is_named else None)
        assert ("Upload-Offset" in reply.headers.get("access-control-expose-headers", "")) == is_named


async def test_other_requests_are_no_pages_business(begin: Begin) -> None:
    worker = await begin(limits=replace(PATIENT, cors_origins=PAGE))
    client = await worker.connect()
    reply = await client.ask(DATA, Origin=PAGE)
    assert (reply.status, of_cors(reply.headers)) == (201, set())
    await client.send(preflight("/v1/devices/1/chunks/1", PAGE))
    reply = await client.reply()
    assert (reply.status, of_cors(reply.headers)) == (404, set())


@pytest.mark.parametrize(
    "text", ["*", "https://a.example/", "shop.example", "https://A.example", "https://a b"]
)
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        origins_of(text)


def test_origins_are_separated_by_commas() -> None:
    assert origins_of("") == frozenset()
    assert origins_of("http://a.example:8080 ,https://[::1]") == {b"http://a.example:8080", b"https://[::1]"}
