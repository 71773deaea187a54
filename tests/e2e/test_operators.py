"""Operators with names: what they may do, and what their watching leaves in the owner's history (agreement 2.8)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from storage.rows.accounts import OPERATOR_ACCOUNT
from tests.e2e.customers import Customer, Town
from tests.e2e.service import Service

pytestmark = pytest.mark.e2e


def test_an_operator_watches_with_a_name_and_a_reason_and_the_owner_sees_it(service: Service) -> None:
    service.init("--test-clock")
    town = Town(service, datetime.now(UTC).date())
    ada = town.move_in("ada@example.org")
    camera = ada.add_camera()
    ada.once(f"/v1/devices/{camera.number}/trial")
    chunk = camera.record()
    for name, role in (("mona", "support"), ("carl", "money")):
        service.command("operator", "add", "--name", name, "--role", role)
    tokens = {name: service.command("operator", "token", "--name", name) for name in ("mona", "carl")}
    mona, carl = (Customer(town, OPERATOR_ACCOUNT, tokens[name]["token"]) for name in ("mona", "carl"))
    assert mona.watch(camera, chunk).is_refusal(422, "reason_needed")
    assert carl.watch(camera, chunk, "curious").is_refusal(403, "role_lacks")
    assert mona.watch(camera, chunk, "Ada rief an").status == 200
    assert mona.watch(camera, chunk, "once more").status == 200, "within four hours of the first"

    command = ("viewer-token", "--device", str(camera.number), "--reason", "for her insurance", "--as")
    refused = service.run(*command, "carl")
    assert (refused.returncode, "role_lacks" in refused.stderr) == (1, True)
    given = service.command(*command, "mona")["token"]
    assert town.ask("GET", f"/v1/devices/{camera.number}/recordings", token=given).status == 200
    assert ada.events()[-2:] == [
        ("watched", "mona", "Ada rief an"),
        ("viewer_token", "mona", "for her insurance"),
    ]

    service.command("operator", "revoke", "--token", str(tokens["mona"]["number"]))
    assert mona.watch(camera, chunk, "once more").status == 401
    assert carl.ask("GET", ada.home).status == 200, "one token was revoked"
