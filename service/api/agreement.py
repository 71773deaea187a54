"""The service agreement, for anybody to read (agreement 11.2)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from service.agreement import versions
from service.api.models.agreement import AgreementText
from service.api.models.base import MAX_ROW
from service.api.numbers import DIGITS
from service.api.problems import PrivateJSON
from service.api.routing import add
from service.api.services import Api

Version = Annotated[int, DIGITS, Path(ge=1, le=MAX_ROW, description="of the agreement")]


class Agreement:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["agreement"], default_response_class=PrivateJSON)
        add(router, "GET", "/v1/agreement", self.current, refuses=(404,))
        add(router, "GET", "/v1/agreement/{version}", self.version, refuses=(404,))
        return router

    async def current(self) -> AgreementText:
        """The agreement as it is now. Who registers accepts it; who goes on using the service is deemed to (11.2)."""
        return AgreementText.of(await self._run(versions.current, self._desk))

    async def version(self, version: Version) -> AgreementText:
        """The agreement as it was published with this number."""
        return AgreementText.of(await self._run(versions.current, self._desk, version))
