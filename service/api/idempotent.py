"""Requests that move money or start a plan: done once for each `Idempotency-Key`, however often they are sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from retention.operators import BUILT_IN
from service.agreement.desk import Actor
from service.agreement.idempotency import MAX_KEY_CHARS, Answer, Decide, once, reference_for
from service.api.problems import NO_STORE
from service.api.services import Api, api_of
from storage.catalog.books import Books

REPLAYED = {"Idempotency-Replayed": "true"}

Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_CHARS,
        pattern=r"^[\x21-\x7e]+$",
        description="new for each request that is not a repetition, e.g. a random UUID; a repetition gets the"
        " answer of the first",
    ),
]


Tell = Callable[[Books, BaseModel], None]


@dataclass(frozen=True, slots=True)
class Once:
    """A request that is done once."""

    api: Api
    key: str
    request_sha256: bytes

    def reference(self, actor: Actor, what: str) -> str:
        """The payment reference of what it asks: the same when it is sent again."""
        return reference_for(actor.account, self._own_key(actor), what)

    def _own_key(self, actor: Actor) -> str:
        """The key among those of the account: operators share theirs, and none is told what another was answered."""
        if actor.operator in ("", BUILT_IN):
            return self.key
        return sha256(f"{actor.operator}\n{self.key}".encode()).hexdigest()

    async def answer(self, actor: Actor, work: Callable[[Tell], BaseModel], status: int = 201) -> Response:
        """Do `work` in a thread unless it was done, and answer with its model.

        Work that is not idempotent by a payment's reference tells its model inside the transaction that decides: it is
        the answer then, should this process be killed before it has one.

        A refusal is not kept: what stood in the way may be gone, and what money did is kept by its reference.

        Raises:
            Conflict: `reused_key`, `in_progress`; and what `work` raises.
        """

        def do(decide: Decide) -> tuple[int, str]:
            def tell(books: Books, model: BaseModel) -> None:
                decide(books, status, model.model_dump_json())

            return status, work(tell).model_dump_json()

        answer: Answer = await self.api.calls.pay(
            once, self.api.desk, actor.account, self._own_key(actor), self.request_sha256, do
        )
        headers = NO_STORE | (REPLAYED if answer.replayed else {})
        return Response(answer.body, answer.status, headers, "application/json")


async def idempotent(request: Request, key: Key) -> Once:
    """All that makes a request what it is: method, address, body."""
    digest = sha256()
    for part in (
        request.method.encode(),
        request.url.path.encode(),
        request.url.query.encode(),
        await request.body(),
    ):
        digest.update(len(part).to_bytes(8, "big") + part)
    return Once(api_of(request), key, digest.digest())


OnceOnly = Annotated[Once, Depends(idempotent)]
