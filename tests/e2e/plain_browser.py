"""A browser without scripts, for pages and their forms."""

from __future__ import annotations

import re
import ssl
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlencode


class Browser:
    """It keeps cookies, and sends the form of a page with its token."""

    def __init__(self, api: tuple[str, int], trusting: ssl.SSLContext | None = None) -> None:
        self._api = api
        self._trusting = trusting
        """Over TLS."""
        self._cookies: dict[str, str] = {}
        self._told: list[str] = []

    def get(self, path: str) -> str:
        return self._ask("GET", path, None)[1]

    @property
    def told(self) -> list[str]:
        """The cookies that were set by the last answer, with all that was said of each."""
        return self._told

    def send(self, path: str, **fields: str) -> int:
        """The form of a page."""
        token = re.findall(r'name="form" value="([^"]+)"', self.get(path))[-1]
        return self._ask("POST", path, urlencode({"form": token, **fields}))[0]

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, str]:
        connection = HTTPConnection(*self._api, timeout=30)
        if self._trusting is not None:
            connection = HTTPSConnection(*self._api, timeout=30, context=self._trusting)
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        headers = {"Cookie": cookies} | (
            {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        )
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        self._told = answer.headers.get_all("Set-Cookie") or []
        for cookie in self._told:
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        text = answer.read().decode()
        connection.close()
        return answer.status, text
