"""The application: which pages there are, and what it owns while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from fastapi import APIRouter, FastAPI, Response

from service.api.errors import answer_errors
from service.api.models import NotReady, Problem, Recordings
from service.api.pages import Pages
from service.api.responses import PLAYLIST_TYPE
from service.api.services import ApiServices
from service.playback import Playback


def create_app(services: ApiServices) -> FastAPI:
    """The application. Its lifespan owns the key cache: a server that runs no lifespan gets 503 for every chunk.

    What is in `services` stays the caller's, who closes it after the application has ended.
    """
    playback = Playback(services)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(playback.run)
            yield
            nursery.cancel_scope.cancel()

    app = FastAPI(
        title="Clipkeep",
        version="1",
        summary="Recordings of cameras: listed, played, fetched, exported",
        description="Times are Unix milliseconds. `clipkeep viewer-token` makes tokens.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(_routes(Pages(services, playback)))
    answer_errors(app)
    return app


_Answers = dict[int | str, Any]
"""Of an operation in the OpenAPI document, by status."""


def _routes(pages: Pages) -> APIRouter:
    router = APIRouter()
    # A `default` answer also keeps FastAPI from promising its own 422.
    refused: _Answers = {"default": {"model": Problem, "description": "refused"}}

    def get(path: str, handler: Callable[..., Any], types: _Answers, **more: Any) -> None:
        router.add_api_route(path, handler, methods=["GET"], responses=refused | types, **more)
        router.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False, **more)

    def content(*types: str) -> dict[str, Any]:
        return {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in types}}

    video: _Answers = {200: content("video/mp2t", "video/mp4"), 206: content("video/mp2t", "video/mp4")}
    listing: _Answers = {200: {"model": Recordings}}
    device = "/v1/devices/{n}"
    recording: dict[str, Any] = {"tags": ["recordings"], "response_class": Response}
    service: dict[str, Any] = {"tags": ["service"]}
    get(f"{device}/recordings", pages.recordings, listing, **recording)
    get(f"{device}/playlist.m3u8", pages.playlist, {200: content(PLAYLIST_TYPE)}, **recording)
    get(f"{device}/chunks/{{capture_ms}}.ts", pages.chunk, video, name="chunk_ts", **recording)
    get(f"{device}/chunks/{{capture_ms}}", pages.chunk, video, **recording)
    get(f"{device}/clip.ts", pages.clip, {200: content("video/mp2t")}, **recording)
    get("/healthz", pages.healthz, {}, **service)
    get("/readyz", pages.readyz, {503: {"model": NotReady}}, **service)
    get("/metrics", pages.metrics, {200: content("text/plain")}, response_class=Response, **service)
    return router
