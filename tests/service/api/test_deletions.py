"""DELETE of recordings: by the owner and by operators, for ever, and on record."""

from __future__ import annotations

import pytest

from storage.rows.recordings import Verdict
from tests.service.api.office import Person, add_operator, add_owner
from tests.service.api.server import Server, refused
from tests.service.world import CHUNK_MS, Clip, World, clips


def captures(who: Person, device: int) -> list[int]:
    listing = who.get(f"/v1/devices/{device}/recordings")
    return [chunk["capture_ms"] for span in listing["spans"] for chunk in span["chunks"]]


@pytest.fixture
def ada(server: Server) -> Person:
    return add_owner(server)


@pytest.fixture
def device(world: World, ada: Person) -> int:
    """Ada's, with ten chunks."""
    number = ada.add_device()
    ada.buy(number)
    world.keep(*clips(10), device=number)
    return number


KEPT = clips(10)
FROM_MS, TO_MS = KEPT[3].capture_ms, KEPT[6].capture_ms
RANGE = f"from={FROM_MS}&to={TO_MS}"


def test_a_range_that_its_owner_deleted_is_served_no_more(
    world: World, server: Server, ada: Person, device: int
) -> None:
    path = f"/v1/devices/{device}"
    assert ada.ask("GET", f"{path}/chunks/{FROM_MS}").status == 200
    done = ada.ask("DELETE", f"{path}/recordings?{RANGE}&reason=the%20neighbour%E2%80%99s%20garden")
    assert done.status == 200
    assert done.json == {
        "device": device,
        "deleted_chunks": 3,
        "bytes": sum(len(clip.data) for clip in KEPT[3:6]),
    }
    assert captures(ada, device) == [clip.capture_ms for clip in KEPT[:3] + KEPT[6:]]
    for clip in KEPT[3:6]:
        refused(ada.ask("GET", f"{path}/chunks/{clip.capture_ms}"), 404, "not_found")
    assert ada.ask("GET", f"{path}/chunks/{TO_MS}").status == 200, "the end is left out"
    export = ada.ask("GET", f"{path}/clip.ts?from=0&to={TO_MS + CHUNK_MS}")
    assert export.body == b"".join(clip.data for clip in KEPT[:3] + KEPT[6:7])
    events = ada.get(f"{ada.home}/events")["items"]
    [event] = [event for event in events if event["what"] == "recordings_deleted"]
    assert (event["who"], event["why"], event["device"]) == ("owner", "the neighbour’s garden", device)
    assert event["facts"] == {"from_ms": FROM_MS, "to_ms": TO_MS, "chunks": 3}


def test_what_is_uploaded_into_it_again_is_refused(
    world: World, server: Server, ada: Person, device: int
) -> None:
    ada.ask("DELETE", f"/v1/devices/{device}/recordings?{RANGE}")
    world.keep(KEPT[3], device=device, verdict=Verdict.DELETED)
    world.keep(Clip(FROM_MS + 1, b"G" * 188), device=device, verdict=Verdict.DELETED)
    assert captures(ada, device) == [clip.capture_ms for clip in KEPT[:3] + KEPT[6:]]


def test_operators_delete_too_and_it_says_so(server: Server, ada: Person, device: int) -> None:
    operator = add_operator(server)
    done = operator.ask("DELETE", f"/v1/devices/{device}/recordings?{RANGE}&reason=court%20order")
    assert done.json["deleted_chunks"] == 3
    events = ada.get(f"{ada.home}/events")["items"]
    assert ("recordings_deleted", "operator", "court order") in [
        (event["what"], event["who"], event["why"]) for event in events
    ]
    again = operator.ask("DELETE", f"/v1/devices/{device}/recordings?{RANGE}")
    assert again.json["deleted_chunks"] == 0


def test_nobody_else_deletes(world: World, server: Server, ada: Person, device: int) -> None:
    bob = add_owner(server, "bob")
    path = f"/v1/devices/{device}/recordings?{RANGE}"
    refused(bob.ask("DELETE", path), 404, "not_found")
    for token in (world.token(device), world.token(), "x"):
        refused(server.ask("DELETE", path, token=token), 401, "bad_credentials")
    refused(server.ask("DELETE", f"{path}&token={ada.token}"), 400, "malformed")
    assert len(captures(ada, device)) == 10


def test_a_range_that_is_none_deletes_nothing(server: Server, ada: Person, device: int) -> None:
    for query in (
        "",
        f"from={FROM_MS}",
        f"to={TO_MS}",
        f"from={TO_MS}&to={FROM_MS}",
        f"from={FROM_MS}&to={FROM_MS}",
        "from=-1&to=5",
        "from=0&to=253402300800000",
        "from=0&to=99999999999999999999",
        "from=yesterday&to=today",
        f"{RANGE}&reason={'x' * 501}",
    ):
        refused(ada.ask("DELETE", f"/v1/devices/{device}/recordings?{query}"), 400, "malformed")
    odd = ada.ask("DELETE", f"/v1/devices/{device}/recordings?{RANGE}&reason=a%0Ab")
    refused(odd, 422, "bad_text")
    assert len(captures(ada, device)) == 10
