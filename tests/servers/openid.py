"""Providers of OpenID Connect for tests: one of our own, that lies as it is told, and `oidc-provider` of npm."""

from __future__ import annotations

import http.cookiejar
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

BACK = "https://app.example.org/back"
FOLDER = Path(__file__).parents[1] / "openid"


def has_npm_provider() -> bool:
    return (FOLDER / "node_modules" / "oidc-provider").is_dir() and shutil.which("node") is not None


needs_npm_provider = pytest.mark.skipif(
    not has_npm_provider(), reason="needs oidc-provider: npm ci --prefix tests/openid"
)


class LyingProvider(ThreadingHTTPServer):
    """Tells the truth until a test changes what it says.

    Args:
        asked: requests by path.
        said: members of its metadata, of an ID token's claims and of its header that are other than they should be.
        raw: whole bodies instead, by path.
        back: to where it sends browsers back.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issuer = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: Counter[str] = Counter()
        self.metadata: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.token: str | None = None
        self.raw: dict[str, bytes] = {}
        self.status = 200
        self.back = BACK
        self.rotate()
        self._codes: dict[str, tuple[str, str]] = {}
        self._numbers = count()

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.key = ECKey.generate_key("P-256", {"kid": f"key-{time.monotonic_ns()}", "use": "sig"})

    def logged_in(self, url: str) -> tuple[str, str]:
        """What comes back from the address that the browser was sent to: code and state."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert query["code_challenge_method"] == "S256"
        assert query["response_type"] == "code"
        code = f"code-{next(self._numbers)}"
        self._codes[code] = query["nonce"], query["code_challenge"]
        return code, query["state"]

    def id_token(self, nonce: str) -> str:
        now_s = self.claims.pop("now_s", int(time.time()))
        claims = {"iss": self.issuer, "aud": "clipkeep", "sub": "ada", "nonce": nonce}
        claims |= {"iat": now_s, "exp": now_s + 60} | self.claims
        return jwt.encode({"alg": "ES256", "kid": self.key.kid}, claims, self.key)

    def redeem(self, form: dict[str, str]) -> dict[str, Any] | None:
        nonce, challenge = self._codes.pop(form["code"], ("", ""))
        proof = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if proof != challenge or form["redirect_uri"] != self.back:
            return None
        return {"id_token": self.token or self.id_token(nonce)}


class _Handler(BaseHTTPRequestHandler):
    server: LyingProvider

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        server = self.server
        server.asked[self.path] += 1
        if self.path == "/.well-known/openid-configuration":
            known = {
                "issuer": server.issuer,
                "authorization_endpoint": f"{server.issuer}/authorize",
                "token_endpoint": f"{server.issuer}/token",
                "jwks_uri": f"{server.issuer}/keys",
            }
            self._answer(server.status, known | server.metadata)
        else:
            self._answer(server.status, {"keys": [server.key.as_dict(private=False)]})

    def do_POST(self) -> None:
        self.server.asked[self.path] += 1
        form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        done = self.server.redeem(form)
        self._answer(400, {"error": "invalid_grant"}) if done is None else self._answer(200, done)

    def _answer(self, status: int, document: object) -> None:
        body = self.server.raw.get(self.path, json.dumps(document).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def lying_provider() -> Iterator[LyingProvider]:
    server = LyingProvider()
    thread = threading.Thread(target=lambda: server.serve_forever(0.02))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def npm_provider(back: str = BACK) -> Iterator[str]:
    """The issuer of a running `oidc-provider`, whose one client is `clipkeep`, and has browsers sent `back`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["node", str(FOLDER / "provider.mjs"), str(port), back]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


class _Stop(request.HTTPRedirectHandler):
    """Follows the provider's own redirects, and not the one to the application."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if newurl.startswith(BACK):
            raise HTTPError(newurl, 302, "back", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def log_in_as_a_person(url: str, name: str) -> dict[str, str]:
    """Go through the pages of `oidc-provider` as a browser. Returns what it sends back."""
    browser = request.build_opener(request.HTTPCookieProcessor(http.cookiejar.CookieJar()), _Stop())
    try:
        page = browser.open(url, timeout=30).read().decode()
        for _ in range(3):
            action = re.search(r'action="([^"]+)"', page)
            prompt = re.search(r'name="prompt" value="([^"]+)"', page)
            assert action is not None, page
            assert prompt is not None, page
            form = {"prompt": prompt[1], "login": name, "password": "x"}
            page = browser.open(action[1], urlencode(form).encode(), timeout=30).read().decode()
    except HTTPError as error:
        if error.code != 302:
            raise
        return dict(parse_qsl(urlsplit(error.filename or error.url).query))
    raise AssertionError("it sends nobody back")
