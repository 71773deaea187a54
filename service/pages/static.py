"""The files that pages load. Each has its content's hash in its address, so that browsers ask for it once."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from service.api.asking import takes_gzip

TYPES = {
    "pages.css": "text/css",
    "pages.mjs": "text/javascript",
    "hls.light.min.mjs": "text/javascript",
    "hls.LICENSE": "text/plain",
    "icon.svg": "image/svg+xml",
}
FOR_EVER = "public, max-age=31536000, immutable"
_HASH_CHARS = 16


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it is and as it is sent to most."""

    name: str
    data: bytes
    gzipped: bytes
    digest: str

    @property
    def address(self) -> str:
        return f"/static/{self.digest}/{self.name}"


@cache
def file(name: str) -> File:
    """One of `TYPES`."""
    data = (files("service.pages") / "static" / name).read_bytes()
    return File(name, data, gzip.compress(data, 9, mtime=0), sha256(data).hexdigest()[:_HASH_CHARS])


class Static:
    """The handler of all files."""

    def address(self, name: str) -> str:
        """Where a page loads it from."""
        return file(name).address

    def routes(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route(
            "/static/{digest}/{name}", self.file, methods=["GET", "HEAD"], include_in_schema=False
        )
        return router

    async def file(self, request: Request, digest: str, name: str) -> Response:
        found = file(name) if name in TYPES else None
        if found is None or digest != found.digest:  # of another release: what is asked for is no more
            return PlainTextResponse("there is no such file", 404, {"Cache-Control": "no-store"})
        headers = {"Cache-Control": FOR_EVER, "Vary": "Accept-Encoding", "ETag": f'"{digest}"'}
        body = found.data
        if takes_gzip(request.headers.get("accept-encoding", "")):
            body, headers["Content-Encoding"] = found.gzipped, "gzip"
        return Response(body, headers=headers, media_type=f"{TYPES[name]}; charset=utf-8")
