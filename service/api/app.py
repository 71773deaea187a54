"""The application: which pages there are, and what it owns while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from fastapi import FastAPI

from service.api.bodies import StrictBodies
from service.api.document import describe
from service.api.errors import answer_errors
from service.api.health import Health
from service.api.recordings import Recordings
from service.api.routing import Methods
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
    parts = (Recordings(services, playback), Health(services, playback))
    routers = [part.routes() for part in parts]
    for router in routers:
        app.include_router(router)
    app.state.methods = Methods(routers)
    app.add_middleware(StrictBodies)
    answer_errors(app)
    describe(app)
    return app
