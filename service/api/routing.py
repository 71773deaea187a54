"""How a page is put on the port: with every status that it may answer, so that the OpenAPI document tells the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyQuery
from starlette.routing import Route

from retention.operators import Act
from service.http.answers import PROBLEM_TYPE
from service.rights import act_of_page

ALWAYS = (400, 500, 503)
"""What any page may answer: malformed, a fault of the service, overload."""
WITH_BODY = (408, 413, 415)
"""What pages with a body may answer besides."""

Answers = dict[int | str, Any]
"""Of an operation in the OpenAPI document, by status."""


def refusals(*statuses: int, model: str = "Problem") -> Answers:
    """Refusals in the document; `model` is one of `service.api.models.problems`."""
    schema = {"schema": {"$ref": f"#/components/schemas/{model}"}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM_TYPE: schema}}
        for status in statuses
    }


def content(*types: str) -> dict[str, Any]:
    """An answer that is no JSON."""
    return {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in types}}


def add(
    router: APIRouter,
    method: str,
    path: str,
    handler: Callable[..., Any],
    *,
    refuses: Iterable[int] = (),
    types: Answers | None = None,
    status: int = 200,
    **more: Any,
) -> None:
    """Put a handler on a page; one of GET answers HEAD too.

    Args:
        refuses: statuses, besides those that every page has.
        types: what is answered else, when it is no model.
    """
    act = act_of_page(method, path)
    by_operators = () if act is None else (401, 403) if act is Act.LOOK else (401, 403, 422)
    more.setdefault("dependencies", []).append(Depends(known_parameters))
    always = ALWAYS if method == "GET" else ALWAYS + WITH_BODY
    responses = refusals(*always, *{*refuses, *by_operators}) | (types or {})
    router.add_api_route(path, handler, methods=[method], responses=responses, status_code=status, **more)
    if method == "GET":
        router.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False, **more)


async def known_parameters(request: Request) -> None:
    """A page takes the query parameters that it names, each once: a misspelt filter must not pass for none, nor the
    last of two for the first. Asked before all else.

    Raises:
        RequestValidationError
    """
    known = _parameters(request.scope["route"].dependant)
    seen = set()
    for name, _ in request.query_params.multi_items():
        problem = ""
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            problem = f"is no parameter of this page; there are: {there}"
        elif name in seen:
            problem = "is there twice"
        if problem:
            raise RequestValidationError([{"loc": ("query", name), "msg": problem, "type": "value"}])
        seen.add(name)


def _parameters(dependant: Dependant) -> set[str]:
    names = {param.alias for param in dependant.query_params}
    if isinstance(dependant.call, APIKeyQuery):
        names.add(dependant.call.model.name)
    return names.union(*map(_parameters, dependant.dependencies))


class Methods:
    """Which methods each page takes."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        self._routes = [route for router in routers for route in router.routes if isinstance(route, Route)]

    def of(self, path: str) -> set[str]:
        return {
            method for route in self._routes if route.path_regex.match(path) for method in route.methods or ()
        }
