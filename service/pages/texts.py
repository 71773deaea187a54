"""What anybody may read: the service agreement and the privacy policy, now and as they were."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from service.agreement import privacy, versions
from service.api.agreement import Version
from service.api.models.agreement import AgreementText, PolicyText
from service.pages.site import Part


class Texts(Part):
    """The handlers. The texts are those that the API keeps for strangers (`service.api.public`)."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/agreement", self.agreement)
        site.get(router, "/agreement/{version}", self.agreement_version)
        site.get(router, "/privacy", self.policy)
        site.get(router, "/privacy/{version}", self.policy_version)
        return router

    async def agreement(self, request: Request) -> Response:
        newest = await self._agreement(None)
        return self._shown(request, "/agreement", "Service agreement", newest, newest)

    async def agreement_version(self, request: Request, version: Version) -> Response:
        newest, asked = await self._agreement(None), await self._agreement(version)
        return self._shown(request, "/agreement", "Service agreement", asked, newest)

    async def policy(self, request: Request) -> Response:
        newest = await self._policy(None)
        return self._shown(request, "/privacy", "Privacy policy", newest, newest)

    async def policy_version(self, request: Request, version: Version) -> Response:
        newest, asked = await self._policy(None), await self._policy(version)
        return self._shown(request, "/privacy", "Privacy policy", asked, newest)

    def _shown(
        self, request: Request, path: str, title: str, row: dict[str, Any], newest: dict[str, Any]
    ) -> Response:
        return self._site.page(request, "text", title=title, row=row, newest=newest["version"], path_of=path)

    async def _agreement(self, version: int | None) -> dict[str, Any]:
        async def make() -> AgreementText:
            return AgreementText.of(await self._site.calls.run(versions.current, self._site.desk, version))

        return _told(await self._site.api.public.answer(f"agreement {version}", make))

    async def _policy(self, version: int | None) -> dict[str, Any]:
        async def make() -> PolicyText:
            return PolicyText.of(await self._site.calls.run(privacy.current, self._site.desk, version))

        return _told(await self._site.api.public.answer(f"policy {version}", make))


def _told(answer: Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(answer.body))
    return found
