"""What operators ask for, and the OpenAPI document."""

from __future__ import annotations

import json

from openapi_spec_validator import validate

from tests.service.api.server import Server, refused


def test_health_readiness_and_metrics_need_no_token(server: Server) -> None:
    assert json.loads(server.get("/healthz", token=None).body) == {"status": "ok"}
    assert json.loads(server.get("/readyz", token=None).body) == {"status": "ready"}
    metrics = server.get("/metrics", token=None)
    assert (metrics.status, metrics.body) == (200, b"clipkeep_up 1\n")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    server.problems = {"store": "down", "workers": "none"}
    reply = server.get("/readyz", token=None)
    refused(reply, 503, "not_ready")
    assert json.loads(reply.body)["problems"] == server.problems
    assert server.get("/healthz", token=None).status == 200


def test_the_openapi_document_is_valid_and_lists_every_page(server: Server) -> None:
    document = json.loads(server.get("/openapi.json", token=None).body)
    validate(document)
    device = "/v1/devices/{n}"
    assert set(document["paths"]) == {
        f"{device}/recordings",
        f"{device}/playlist.m3u8",
        f"{device}/chunks/{{capture_ms}}",
        f"{device}/chunks/{{capture_ms}}.ts",
        f"{device}/clip.ts",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    for path, operations in document["paths"].items():
        assert set(operations) == {"get"}
        operation = operations["get"]
        assert "422" not in operation["responses"], "it is never answered"
        for status, answer in operation["responses"].items():
            assert list(answer["content"]) == ["application/problem+json"] or status < "300"
        if path.startswith("/v1"):
            assert {name for scheme in operation["security"] for name in scheme} == {
                "HTTPBearer",
                "APIKeyQuery",
            }
            assert operation["description"]
    names = {p["name"] for p in document["paths"][f"{device}/recordings"]["get"]["parameters"]}
    assert names == {"n", "from", "to", "limit"}
    assert server.get("/docs", token=None).status == 200
