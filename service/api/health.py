"""What those who run the service ask: is it alive, can it work, its figures. Without a token."""

from __future__ import annotations

import trio
from fastapi import APIRouter, Request, Response

from service.api.door import actor_of
from service.api.models.problems import NotReady, Ready, Status
from service.api.problems import PrivateJSON, problem
from service.api.routing import add, content, refusals
from service.api.services import Api


class Health:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._services = api.services
        self._playback = api.playback
        self._metrics_thread = trio.CapacityLimiter(1)

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["service"])
        not_ready = refusals(503, model=NotReady.__name__)
        add(router, "GET", "/healthz", self.healthz)
        add(
            router,
            "GET",
            "/readyz",
            self.readyz,
            types=not_ready | {200: {"model": Ready}},
            response_class=Response,
        )
        add(
            router,
            "GET",
            "/metrics",
            self.metrics,
            types={200: content("text/plain")},
            refuses=() if self._services.open_metrics else (401, 403),
            response_class=Response,
        )
        return router

    async def healthz(self) -> Status:
        """The process is alive."""
        return Status(status="ok")

    async def readyz(self) -> Response:
        """Whether the service can do its work; else what is wrong."""
        problems = await self._services.ready()
        if not self._playback.running:
            problems = problems | {"keyring": "data keys are not being read"}
        if not problems:
            return PrivateJSON({"status": "ready", "survives": self._services.survives()})
        detail = "; ".join(f"{component}: {what}" for component, what in problems.items())
        return problem(503, "not_ready", detail, problems=problems)

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus. Anybody may read them, or operators alone: `[api] open_metrics`."""
        if not self._services.open_metrics:
            bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
            (await actor_of(request, bearer)).require_operator()
        text = await trio.to_thread.run_sync(self._services.metrics, limiter=self._metrics_thread)
        return Response(text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
