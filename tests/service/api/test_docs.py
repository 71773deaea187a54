"""`/docs`: whole, and with nothing from elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from tests.service.api.server import Server


class Page(HTMLParser):
    """What a page loads, its texts, and whether a script stands in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.forms: set[tuple[str, str]] = set()
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.inline = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.inline = self.inline or any(name.startswith("on") or name == "style" for name in given)
        self.inline = self.inline or (tag == "script" and "src" not in given) or tag == "style"
        if tag in ("script", "link", "img", "iframe"):
            self.loaded.append(given.get("src") or given["href"])
        if tag == "form":
            self.forms.add((given["data-method"].lower(), given["data-path"]))
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and given["href"].startswith("#"):
            self.targets.add(given["href"][1:])


def test_the_page_lists_every_operation_and_loads_nothing_from_elsewhere(server: Server) -> None:
    reply = server.get("/docs", token=None)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    text = reply.body.decode()
    page = Page(text)
    assert not page.inline, "the policy would stop it"
    document = json.loads(server.get("/openapi.json", token=None).body)
    assert page.forms == {
        (method, path) for path, operations in document["paths"].items() for method in operations
    }
    assert page.targets <= page.ids
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= page.ids
    assert len(page.loaded) == 2
    for address in page.loaded:
        assert address.startswith("/docs/")
        loaded = server.get(address, token=None)
        assert loaded.status == 200
        assert loaded.headers["x-content-type-options"] == "nosniff"
        assert not re.search(rb"https?:|//[a-z]|@import|url\(", loaded.body.replace(b"// Sends", b""))
    assert not re.search(r'(src|href)="?(https?:)?//', text)


def test_a_body_of_which_nothing_is_required_is_said_to_be_optional(server: Server) -> None:
    document = json.loads(server.get("/openapi.json", token=None).body)
    optional = {
        path
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if operation.get("requestBody", {}).get("required") is False
    }
    assert "/v1/devices/{n}/viewer-tokens" in optional
    assert "/v1/sessions" not in optional
