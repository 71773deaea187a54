"""service.api on its own server, over loopback, and how the tests ask it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from dataclasses import dataclass, replace
from typing import Any

import trio

from service.api import ApiServices, create_app
from service.api.services import Api
from service.clients import Clients, parse_proxies
from service.http import HttpLimits, HttpServer
from service.playback.used import Used
from tests.service.world import NOON_MS, World, clips


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    cookies: tuple[str, ...] = ()
    """Each Set-Cookie, of which there may be several."""

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """The API served in a thread of this process."""

    def __init__(
        self,
        world: World,
        *,
        settings: dict[str, Any] | None = None,
        trusted_proxies: str = "",
        desk: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        self.world = world
        self._clients = Clients(parse_proxies(trusted_proxies))
        self.desk = replace(world.desk(**settings or {}), **desk or {})
        self.used = Used()
        self.problems: dict[str, str] = {}
        self.bugs: list[str] = []
        self._services = ApiServices(
            **world.parts(),
            desk=self.desk,
            used=self.used,
            delete_delay_ms=3_600_000,
            ready=self._ready,
            survives=lambda: {"catalog": "machine_crash"},
            metrics=lambda: b"clipkeep_up 1\n",
            operation=world.catalog,
            **fields,
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: trio.run(self._run))

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._started.wait(60), "the server does not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._trio.run_sync_soon(self._http.stop)
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _ready(self) -> dict[str, str]:
        return self.problems

    async def _run(self) -> None:
        self._trio = trio.lowlevel.current_trio_token()
        app = create_app(self._services)
        self.api: Api = app.state.api
        self._http = Recorded(self.bugs, app, HttpLimits(linger_close_s=0.5), clients=self._clients)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._http.run, self._listener)
            self._started.set()

    # --- asking ---------------------------------------------------------------------------------------------

    def get(self, path: str, *, token: str | None = "", method: str = "GET", **headers: str) -> Reply:
        """One request on a connection of its own. `token` "" is the device's own, None is none."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.world.token()}"
        return self.send(method, path, None, headers)

    def ask(
        self, method: str, path: str, body: object = None, *, token: str | None = None, **headers: str
    ) -> Reply:
        """As `get`, with a body: an object is sent as JSON, bytes as they are."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            headers.setdefault("Content_Type", "application/json")
        return self.send(method, path, body, headers)

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, headers=names)
            response = connection.getresponse()
            pairs = [(name.lower(), value) for name, value in response.getheaders()]
            made = tuple(value for name, value in pairs if name == "set-cookie")
            return Reply(response.status, dict(pairs), response.read(), made)
        finally:
            connection.close()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Recorded(HttpServer):
    """The server, with what its application raised."""

    def __init__(self, bugs: list[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bugs = bugs

    def on_failure(self, error: Exception, *, answered: bool) -> None:
        super().on_failure(error, answered=answered)
        self._bugs.append(repr(error))


AT = clips(1)[0].capture_ms
CHUNK = f"/v1/devices/1/chunks/{AT}"
ALL = f"from=0&to={NOON_MS}"
PATHS = [
    CHUNK,
    f"{CHUNK}.ts",
    f"/v1/devices/1/recordings?{ALL}",
    f"/v1/devices/1/playlist.m3u8?{ALL}",
    "/v1/devices/1/playlist.m3u8",
    f"/v1/devices/1/clip.ts?{ALL}",
]


def refused(reply: Reply, status: int, code: str) -> None:
    """The shape that every refusal has."""
    assert (reply.status, reply.error) == (status, code), reply
    document = json.loads(reply.body)
    assert document["detail"]
    assert document["title"]
    assert (document["status"], document["type"]) == (status, f"urn:clipkeep:problem:{code}")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["cache-control"] == "no-store"
    assert ("retry-after" in reply.headers) is (status in (429, 503))
    assert reply.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
