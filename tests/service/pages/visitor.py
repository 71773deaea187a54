"""A browser without scripts: it keeps cookies, reads forms out of pages, fills them in and sends them."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode, urlsplit

from tests.service.api.server import Reply, Server


@dataclass
class HtmlForm:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class Html(HTMLParser):
    """What a page holds: its forms, links, what it loads, its text, and what the policy would stop."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[HtmlForm] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self.words: list[str] = []
        self._select = ""
        self.feed(text)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if (tag == "script" and "src" not in given) or tag == "style":
            self.inline.append(tag)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("script", "img", "iframe", "video", "source") and "src" in given:
            self.loaded.append(given["src"])
        if tag == "link":
            self.loaded.append(given["href"])
        if tag == "form":
            self.forms.append(HtmlForm(given.get("action", ""), given.get("method", "get").lower()))
        if tag == "select":
            self._select = given["name"]
        if tag == "option" and self.forms and self._select:
            chosen = "selected" in given or self._select not in self.forms[-1].fields
            if chosen:
                self.forms[-1].fields[self._select] = given.get("value", "")
        if tag == "textarea" and self.forms:
            self.forms[-1].fields[given["name"]] = ""
        if tag in ("input", "button") and self.forms and "name" in given:
            if given.get("type") in ("checkbox", "radio") and "checked" not in given:
                return
            self.forms[-1].fields[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@dataclass
class Shown:
    """An answer, and what a browser would make of it."""

    path: str
    reply: Reply

    @property
    def status(self) -> int:
        return self.reply.status

    @property
    def source(self) -> str:
        body = self.reply.body
        if self.reply.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        return body.decode()

    @property
    def html(self) -> Html:
        return Html(self.source)

    def form(self, action: str) -> HtmlForm:
        found = [one for one in self.html.forms if urlsplit(one.action).path == action]
        assert found, (action, [one.action for one in self.html.forms], self.html.text)
        return found[0]

    @property
    def goes_to(self) -> str:
        assert self.status == 303, (self.status, self.html.text)
        return self.reply.headers["location"]


class Visitor:
    """Somebody with a browser.

    Args:
        headers: sent with each request.
    """

    def __init__(self, server: Server, **headers: str) -> None:
        self.server = server
        self.cookies: dict[str, str] = {}
        self.set_cookies: list[str] = []
        self._headers = headers

    def get(self, path: str, **headers: str) -> Shown:
        return self._send("GET", path, None, headers)

    def post(self, path: str, fields: dict[str, str] | bytes, **headers: str) -> Shown:
        body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        return self._send("POST", path, body, {"Content_Type": "application/x-www-form-urlencoded"} | headers)

    def fill(self, page: Shown, action: str, **fields: str) -> Shown:
        """Send a form of a page, with these fields changed."""
        form = page.form(action)
        return self.post(form.action, form.fields | fields)

    def follow(self, shown: Shown) -> Shown:
        """Where a redirect leads, up to a page."""
        for _ in range(5):
            if shown.status != 303:
                return shown
            shown = self.get(shown.goes_to)
        raise AssertionError("redirects go round in a circle")

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Shown:
        headers = self._headers | headers
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        reply = self.server.send(method, path.partition("#")[0], body, headers)
        self.set_cookies = reply.cookies
        for cookie in reply.cookies:
            name, _, rest = cookie.partition("=")
            value, _, attributes = rest.partition(";")
            if "Max-Age=0" in attributes:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return Shown(path, reply)
