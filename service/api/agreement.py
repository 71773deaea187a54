"""What anybody may read without a token: the service agreement, the privacy policy, what is planned (agreement 3.2, 5,
11.2)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from service.agreement import announcing, privacy, versions
from service.api.models.agreement import AgreementText, Planned, PolicyText
from service.api.models.base import MAX_ROW
from service.api.numbers import DIGITS
from service.api.routing import add
from service.api.services import Api

Version = Annotated[int, DIGITS, Path(ge=1, le=MAX_ROW, description="of the text")]


class Agreement:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run
        self._public = api.public

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["agreement"])
        add(router, "GET", "/v1/agreement", self.agreement, refuses=(404,), response_model=AgreementText)
        add(
            router,
            "GET",
            "/v1/agreement/{version}",
            self.version,
            refuses=(404,),
            response_model=AgreementText,
        )
        add(router, "GET", "/v1/privacy-policy", self.policy, refuses=(404,), response_model=PolicyText)
        add(
            router,
            "GET",
            "/v1/privacy-policy/{version}",
            self.policy_version,
            refuses=(404,),
            response_model=PolicyText,
        )
        add(router, "GET", "/v1/announcements", self.planned, response_model=list[Planned])
        return router

    async def agreement(self) -> Response:
        """The agreement as it is now. Who registers accepts it; who goes on using the service is deemed to (11.2)."""
        return await self._agreement(None)

    async def version(self, version: Version) -> Response:
        """The agreement as it was published with this number."""
        return await self._agreement(version)

    async def policy(self) -> Response:
        """The privacy policy as it is now (5)."""
        return await self._policy(None)

    async def policy_version(self, version: Version) -> Response:
        """The privacy policy as it was published with this number."""
        return await self._policy(version)

    async def planned(self) -> Response:
        """Changes and interruptions of the service that are planned or under way, each until it is over (3.1, 3.2), in
        order of their beginning."""

        async def make() -> list[Planned]:
            return [Planned.of(row) for row in await self._run(announcing.planned, self._desk)]

        return await self._public.answer("announcements", make)

    async def _agreement(self, version: int | None) -> Response:
        async def make() -> AgreementText:
            return AgreementText.of(await self._run(versions.current, self._desk, version))

        return await self._public.answer(f"agreement {version}", make)

    async def _policy(self, version: int | None) -> Response:
        async def make() -> PolicyText:
            return PolicyText.of(await self._run(privacy.current, self._desk, version))

        return await self._public.answer(f"policy {version}", make)
