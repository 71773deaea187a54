"""“My data”: all that is kept about an account, as a file for its owner."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import structlog
import trio
from fastapi import APIRouter, Path, Response
from starlette.types import Receive, Scope, Send

from ingest import answers
from retention.freshness import Freshness
from service.agreement import my_data
from service.api.door import Account, Caller
from service.api.models.base import MAX_ROW
from service.api.models.people import DataExport
from service.api.numbers import DIGITS
from service.api.pieces import PiecewiseAnswer, require_fresh
from service.api.problems import NO_STORE, PrivateJSON
from service.api.routing import Answers, add, content
from service.api.services import Api
from service.playback import Refused
from storage.errors import ClipkeepError
from storage.objects import ObjectStore
from storage.rows.people import ExportRow

ExportNumber = Annotated[
    int, DIGITS, Path(alias="export", ge=1, le=MAX_ROW, description="number of the file")
]
MAX_DOWNLOADS = 64
"""At once, of a process: each holds a frame of 256 KiB, and a thread while it is read."""
THREADS = 2
_log = structlog.get_logger("api")


class Exports:
    """The handlers. Each docstring is a description in the OpenAPI document."""

    def __init__(self, api: Api) -> None:
        self._desk = api.desk
        self._run = api.calls.run
        self._store = api.services.store
        self._freshness = api.playback.freshness
        self._under_way: set[int] = set()
        """Accounts whose file is being sent: one at a time for each."""
        self._threads = trio.CapacityLimiter(THREADS)

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["my data"], default_response_class=PrivateJSON)
        of_account = "/v1/accounts/{account}/exports"
        file = f"{of_account}/{{export}}/file"
        zipped: Answers = {200: content("application/zip")}
        add(router, "GET", of_account, self.listed, refuses=(401, 403, 404))
        add(router, "POST", of_account, self.ask, refuses=(401, 403, 404, 409, 422, 429), status=202)
        refuses = (401, 403, 404, 409, 429)
        add(router, "GET", file, self.file, refuses=refuses, types=zipped, response_class=Response)
        return router

    async def listed(self, account: Account, actor: Caller) -> list[DataExport]:
        """Files of all that is kept about the account: being made, or there to be downloaded until they are gone."""
        return [DataExport.of(row) for row in await self._run(my_data.listed, self._desk, actor, account)]

    async def ask(self, account: Account, actor: Caller) -> DataExport:
        """Have all that is kept about the account put into a file, in the background; its owner is told when it is
        there, and it is gone a week later. One at a time."""
        return DataExport.of(await self._run(my_data.ask, self._desk, actor, account))

    async def file(self, account: Account, export: ExportNumber, actor: Caller) -> Response:
        """The file: a zip with texts as JSON and CSV, and with a list of recordings and their links."""
        _require_room(self._under_way, account)
        row = await self._run(my_data.begin, self._desk, actor, account, export)
        return Download(self._store, row, self._under_way, self._threads, self._freshness)


class Download(Response):
    """A file, a frame at a time."""

    def __init__(
        self,
        store: ObjectStore,
        row: ExportRow,
        under_way: set[int],
        threads: trio.CapacityLimiter,
        freshness: Freshness,
    ) -> None:
        headers = {
            "Content-Type": "application/zip",
            "Content-Length": str(row.length),
            "Content-Disposition": f'attachment; filename="account-{row.account}.zip"',
        }
        super().__init__(None, 200, NO_STORE | headers)
        self._store, self._row = store, row
        self._under_way, self._threads = under_way, threads
        self._freshness = freshness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            return await super().__call__(scope, receive, send)
        _require_room(self._under_way, self._row.account)  # of several at once, one is the first
        self._under_way.add(self._row.account)
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        answer = PiecewiseAnswer(send, start, partial(require_fresh, self._freshness))
        try:
            for number in range(my_data.frames(self._row)):
                data = await trio.to_thread.run_sync(
                    my_data.read_frame, self._store, self._row, number, limiter=self._threads
                )
                await answer.send(data, more=True)
            await answer.send(b"", more=False)
        except ClipkeepError as error:
            if not answer.has_begun:
                raise
            # The server closes the connection of an answer that its application left unfinished.
            _log.warning("download_stopped", account=self._row.account, code=error.code)
        finally:
            self._under_way.discard(self._row.account)


def _require_room(under_way: set[int], account: int) -> None:
    """Raises Refused: `overloaded`."""
    if len(under_way) >= MAX_DOWNLOADS or account in under_way:
        raise Refused.by(answers.OVERLOADED)
