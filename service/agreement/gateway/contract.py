"""The contract of a gateway's endpoint as an OpenAPI document: docs/payments-openapi.json is made of it.

python -m service.agreement.gateway.contract > docs/payments-openapi.json
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.agreement.gateway.asked import ChargeAsked, MethodAsked, RefundAsked, RemovalAsked, VoidAsked
from service.agreement.gateway.signing import SIGNATURE, TIMESTAMP
from service.agreement.gateway.told import DisputeTold, MethodTold, PaymentTold

Json = dict[str, Any]
OPERATIONS: dict[tuple[str, str], tuple[type[BaseModel] | None, type[BaseModel], str]] = {
    ("post", "/charges"): (ChargeAsked, PaymentTold, "Charge an amount"),
    ("post", "/refunds"): (RefundAsked, PaymentTold, "Give back a part or all of a charge"),
    ("post", "/voids"): (VoidAsked, PaymentTold, "Charge nothing under this reference any more"),
    ("get", "/payments/{reference}"): (None, PaymentTold, "What became of a charge or refund"),
    ("post", "/methods"): (MethodAsked, MethodTold, "Set up a payment method"),
    ("get", "/methods/{reference}"): (None, MethodTold, "What became of its set-up"),
    ("post", "/methods/removals"): (RemovalAsked, MethodTold, "Keep a payment method no longer"),
}
"""By method and path: what is asked, what is told, and in short what it is."""
_HEADERS = {
    TIMESTAMP: "Unix s of sending; an answer repeats that of its request",
    SIGNATURE: "v1=HEX for each key of the sender, separated by commas",
}


def document() -> Json:
    models: set[type[BaseModel]] = {DisputeTold}
    for asked, told, _ in OPERATIONS.values():
        models |= {model for model in (asked, told) if model is not None}
    wanted: list[Any] = [(m, "validation") for m in sorted(models, key=lambda m: m.__name__)]
    _, schemas = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
    paths: dict[str, Json] = {}
    for (method, path), (asked, told, summary) in OPERATIONS.items():
        paths.setdefault(path, {})[method] = _operation(path, asked, told, summary)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "What Clipkeep asks of a payment gateway",
            "version": "1",
            "description": "Paths are below [payments] url. How both sides sign, and what the words mean: payments.md.",
        },
        "paths": paths,
        "webhooks": {"report": {"post": _report()}},
        "components": {"schemas": schemas["$defs"]},
    }


def _operation(path: str, asked: type[BaseModel] | None, told: type[BaseModel], summary: str) -> Json:
    parameters: list[Json] = [_header(name) for name in _HEADERS]
    if "{reference}" in path:
        reference = PaymentTold.model_json_schema()["properties"]["reference"]
        parameters.append({"name": "reference", "in": "path", "required": True, "schema": reference})
    answer = {
        "description": "what became of it; any other status is an answer that was lost",
        "headers": {
            name: {"required": True, "description": about, "schema": {"type": "string"}}
            for name, about in _HEADERS.items()
        },
        "content": _content(told),
    }
    body = {} if asked is None else {"requestBody": {"required": True, "content": _content(asked)}}
    return {"summary": summary, "parameters": parameters, **body, "responses": {"200": answer}}


def _report() -> Json:
    schemas = [
        _content(model)["application/json"]["schema"] for model in (PaymentTold, MethodTold, DisputeTold)
    ]
    return {
        "summary": "POST /v1/payments/reports of Clipkeep's API port: what was decided later",
        "parameters": [_header(name) for name in _HEADERS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"oneOf": schemas}}}},
        "responses": {"202": {"description": "taken"}, "503": {"description": "to be sent again"}},
    }


def _header(name: str) -> Json:
    return {
        "name": name,
        "in": "header",
        "required": True,
        "description": _HEADERS[name],
        "schema": {"type": "string"},
    }


def _content(model: type[BaseModel]) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}


def text() -> str:
    """The file's."""
    return json.dumps(document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
