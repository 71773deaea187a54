"""What operators ask for, and the OpenAPI document."""

from __future__ import annotations

import json
import re
from pathlib import Path

from openapi_spec_validator import validate

from tests.service.api.office import add_operator, add_owner
from tests.service.api.server import Server, refused
from tests.service.world import World

ROOT = Path(__file__).parents[3]
PROBLEMS = {"Problem", "Blocked", "NotReady"}
LOGS_IN = (
    "/v1/sessions",
    "/v1/payments/reports",
    "/metrics",
    "/v1/log-ins/completion",
    "/v1/log-ins/registration",
)
OPEN_TO_ALL = {
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/v1/agreement"),
    ("get", "/v1/agreement/{version}"),
    ("get", "/v1/announcements"),
    ("get", "/v1/unsubscribe"),
    ("post", "/v1/unsubscribe"),
    ("get", "/v1/privacy-policy"),
    ("get", "/v1/privacy-policy/{version}"),
    ("get", "/v1/packages"),
    ("get", "/v1/prices"),
    ("post", "/v1/payments/reports"),
    ("post", "/v1/accounts"),
    ("post", "/v1/accounts/{account}/activation"),
    ("post", "/v1/accounts/{account}/activation-code"),
    ("post", "/v1/password-resets"),
    ("put", "/v1/password-resets"),
    ("post", "/v1/sessions"),
    ("get", "/v1/providers"),
    ("post", "/v1/log-ins"),
    ("post", "/v1/log-ins/completion"),
    ("post", "/v1/log-ins/registration"),
}


def test_health_readiness_and_metrics_need_no_token(server: Server) -> None:
    assert json.loads(server.get("/healthz", token=None).body) == {"status": "ok"}
    assert json.loads(server.get("/readyz", token=None).body) == {
        "status": "ready",
        "survives": {"catalog": "machine_crash"},
    }
    metrics = server.get("/metrics", token=None)
    assert (metrics.status, metrics.body) == (200, b"clipkeep_up 1\n")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    server.problems = {"store": "down", "workers": "none"}
    reply = server.get("/readyz", token=None)
    refused(reply, 503, "not_ready")
    assert json.loads(reply.body)["problems"] == server.problems
    assert server.get("/healthz", token=None).status == 200


def test_metrics_may_be_for_operators_alone(world: World) -> None:
    with Server(world, open_metrics=False) as server:
        assert server.get("/metrics", token=None).status == 401
        refused(add_owner(server).ask("GET", "/metrics"), 403, "operators_only")
        assert add_operator(server).ask("GET", "/metrics").body == b"clipkeep_up 1\n"
        validate(server.get("/openapi.json", token=None).json)


def test_every_answer_says_that_it_is_no_frame_and_nothing_else_than_it_says(server: Server) -> None:
    for path in ("/healthz", "/docs", "/openapi.json", "/no/such/page", "/v1/accounts/1"):
        headers = server.get(path, token=None).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"


def test_the_openapi_document_is_valid_and_lists_every_page(server: Server) -> None:
    document = json.loads(server.get("/openapi.json", token=None).body)
    validate(document)
    device = "/v1/devices/{n}"
    watched = {
        "recordings",
        "playlist.m3u8",
        "chunks/{capture_ms}",
        "chunks/{capture_ms}.ts",
        "chunks/{capture_ms}.m4s",
        "chunks/{capture_ms}.map.mp4",
        "chunks/{capture_ms}.init.mp4",
        "clip.ts",
        "clip.mp4",
        "still.jpg",
        "stills.jpg",
    }
    of_clips = watched - {"recordings", "stills.jpg"}
    watched |= {f"clips/{{clip}}/{name}" for name in of_clips}
    page = (ROOT / "docs" / "api.md").read_text().partition("# The ingest port")[0]
    assert set(re.findall(r"`([A-Z]+) (/[^`]*)`", page)) == {
        (method.upper(), path) for path, operations in document["paths"].items() for method in operations
    }
    open_to_all = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                if status >= "300":
                    [(kind, form)] = answer["content"].items()
                    assert kind == "application/problem+json"
                    assert form["schema"]["$ref"].removeprefix("#/components/schemas/") in PROBLEMS
            assert operation["description"]
            schemes = {name for scheme in operation.get("security", ()) for name in scheme}
            if not schemes:
                open_to_all.add((method, path))
                assert not {"401"} & set(operation["responses"]) or path in LOGS_IN
            elif path.removeprefix(f"{device}/") in watched and method == "get":
                assert schemes == {"HTTPBearer", "APIKeyQuery"}
            else:
                assert schemes == {"Account"}
                assert {"401", "403"} <= set(operation["responses"])
    assert open_to_all == OPEN_TO_ALL
    names = {p["name"] for p in document["paths"][f"{device}/recordings"]["get"]["parameters"]}
    assert names == {"n", "from", "to", "limit", "Clipkeep-Reason"}
    assert server.get("/docs", token=None).status == 200
