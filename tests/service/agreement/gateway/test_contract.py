"""docs/payments-openapi.json: it says what the client does, and the reference server does what it says."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from retention.money import Money
from service.agreement.errors import PaymentRefused
from service.agreement.gateway import contract
from service.agreement.gateway.client import HttpGateway
from service.agreement.gateway.signing import Keys
from service.agreement.gateway.wire import Bounds, Endpoint
from service.agreement.payments import PaymentGateway
from tests.servers.payments import KEY, payment_server

FILE = Path(__file__).parents[4] / "docs" / "payments-openapi.json"
FIVE = Money(500, "USD")
BOUNDS = Bounds(10, 30, 65536)


def test_the_file_is_of_this_release() -> None:
    assert FILE.read_text() == contract.text(), f"python -m service.agreement.gateway.contract > {FILE.name}"


def ask_everything(gateway: PaymentGateway) -> None:
    """Each call of the protocol, with each method's outcome that has another shape."""
    for method in ("card", "declined", "confirm"):
        with suppress(PaymentRefused):
            gateway.charge(f"c-{method}", FIVE, method, "monthly plan, device 1 é")
    assert gateway.look_up("c-card", "charge", FIVE)
    assert gateway.look_up("c-none", "charge", FIVE) is None
    assert gateway.refund("c-card.r1", "c-card", FIVE)
    assert gateway.void("c-void", FIVE) is None
    assert gateway.set_up_method("m-1") == gateway.look_up_method("m-1")
    assert gateway.look_up_method("m-2") is None
    gateway.remove_method("m-1", "card-m-1")


class Between(ThreadingHTTPServer):
    """Passes requests on to a gateway, and keeps what was asked and told."""

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), Passed)
        self.endpoint = Endpoint(url, BOUNDS)
        self.kept: list[tuple[str, str, bytes, bytes]] = []


class Passed(BaseHTTPRequestHandler):
    server: Between

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signed = {name: self.headers[name] for name in ("Clipkeep-Timestamp", "Clipkeep-Signature")}
        answer = self.server.endpoint.ask(self.command, self.path, signed, body)
        self.server.kept.append((self.command.lower(), self.path, body, answer.body))
        self.send_response(answer.status)
        for name in signed:
            self.send_header(name, answer.headers[name.lower()])
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, bytes, bytes]]:
    with payment_server(tmp_path_factory.mktemp("gateway")) as server, Between(server.url) as between:
        threading.Thread(target=between.serve_forever, daemon=True).start()
        ask_everything(HttpGateway(Endpoint(f"http://127.0.0.1:{between.server_port}", BOUNDS), Keys(KEY)))
        between.shutdown()
    return between.kept


def operation(document: Any, method: str, path: str) -> Any:
    for template, operations in document["paths"].items():
        same = template == path or template.partition("{")[0] == path.rpartition("/")[0] + "/"
        if same and method in operations:
            return template, operations[method]
    raise AssertionError(f"{method} {path} is not in the document")


def fits(document: Any, content: Any, body: bytes) -> None:
    schema = {**content["application/json"]["schema"], "components": document["components"]}
    Draft202012Validator(schema).validate(json.loads(body))


def test_what_is_asked_and_told_fits_the_document(kept: list[tuple[str, str, bytes, bytes]]) -> None:
    document = json.loads(FILE.read_text())
    seen = set()
    for method, path, asked, told in kept:
        template, found = operation(document, method, path)
        seen.add((method, template))
        if "requestBody" in found:
            fits(document, found["requestBody"]["content"], asked)
        else:
            assert asked == b""
        fits(document, found["responses"]["200"]["content"], told)
    assert seen == set(contract.OPERATIONS), "every operation was asked"


def test_the_page_names_every_operation_and_outcome() -> None:
    page = (FILE.parent / "payments.md").read_text()
    for (method, path), (_, told, _) in contract.OPERATIONS.items():
        assert f"`{method.upper()} {path}`" in page
        for outcome in told.model_json_schema()["properties"]["outcome"]["enum"]:
            assert f"`{outcome}`" in page
