"""The OpenAPI document: what FastAPI finds out, with the refusals that this port has, and without those it hasn't."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.api.models.problems import Blocked, NotReady, Problem

_OWN_422 = "HTTPValidationError"
"""FastAPI's own refusal, which is never answered: what is malformed gets a 400."""


def describe(app: FastAPI) -> None:
    """Make `app` tell the truth at /openapi.json and /docs."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _let_go_without(body: dict[str, Any] | None, found: dict[str, Any]) -> None:
    """A body of which nothing is required may be left out."""
    if body is None:
        return
    schema = body["content"]["application/json"]["schema"]
    name = schema.get("$ref", "").rpartition("/")[2]
    if name and not found["components"]["schemas"][name].get("required"):
        body["required"] = False


def document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    for operations in found["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            if _OWN_422 in str(responses.get("422")):
                del responses["422"]
            _let_go_without(operation.get("requestBody"), found)
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for name in (_OWN_422, "ValidationError"):
        schemas.pop(name, None)
    models: list[Any] = [(model, "serialization") for model in (Problem, Blocked, NotReady)]
    _, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")
    schemas |= definitions["$defs"]
    return found
