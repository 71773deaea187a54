"""Sweeps and verifications that are asked for on a page: shown first, confirmed, run beside the page, one at a time."""

from __future__ import annotations

from threading import Event

from retention.operators import OperatorRole
from service.agreement import records
from service.agreement.desk import OPERATOR
from service.pages.operators.sweeps import GOOD_MS
from storage.days import MS_PER_DAY
from storage.rows.accounts import OPERATOR_ACCOUNT
from tests.service.api.server import Server
from tests.service.pages.operators.conftest import Errandry, waited
from tests.service.pages.operators.test_pages import as_role
from tests.service.pages.visitor import Shown, Visitor
from tests.service.world import World, clips

SWEEP = "/operator/sweep"


def planned(visitor: Visitor, **fields: str) -> Shown:
    assert visitor.fill(visitor.get(SWEEP), f"{SWEEP}/plan", **fields).goes_to == SWEEP
    return waited(visitor, SWEEP, "What a sweep would do")


def past(world: World, days: int) -> None:
    world.clock.ms += days * MS_PER_DAY


def test_a_plan_is_shown_and_what_was_shown_is_run(server: Server, world: World) -> None:
    world.keep(*clips(3))
    past(world, 9)
    admin = as_role(server, OperatorRole.ADMIN, "ann")
    page = planned(admin)
    assert "Days that end 1" in page.html.text
    assert world.catalog.last_sweep() is None, "a dry run changes nothing"
    assert admin.fill(page, f"{SWEEP}/run").status == 422, "no reason"
    assert admin.fill(page, f"{SWEEP}/run", reason="the disk fills").goes_to == SWEEP
    shown = waited(admin, SWEEP, "The sweep that ann ran")
    assert "Chunks taken out of service 3" in shown.html.text
    report = world.catalog.last_sweep()
    assert report is not None
    assert report["who"] == "operator ann"
    assert len(report["days"]) == 1
    [event] = [e for e in records.events(server.desk, OPERATOR, OPERATOR_ACCOUNT) if e.what == "sweep_begun"]
    assert (event.operator, event.why) == ("ann", "the disk fills")
    assert f"{SWEEP}/run" not in {form.action for form in shown.html.forms}, "that plan is carried out"


def test_a_run_that_would_do_something_else_is_refused(server: Server, world: World) -> None:
    world.keep(*clips(3))
    admin = as_role(server, OperatorRole.ADMIN)
    page = planned(admin)
    assert "Days that end 0" in page.html.text
    past(world, 9)
    old = admin.fill(page, f"{SWEEP}/run", reason="x")
    assert old.status == 409
    assert "too old" in old.html.text
    world.clock.ms += 1
    page = planned(admin)
    world.keep(*clips(1, start_ms=world.clock.ms - 60_000, expires_on=world.clock.ms // MS_PER_DAY + 1))
    world.clock.ms += MS_PER_DAY - world.clock.ms % MS_PER_DAY - GOOD_MS + 1
    page = planned(admin)
    world.clock.ms += GOOD_MS - 1  # midnight has passed, and another day is over
    assert admin.fill(page, f"{SWEEP}/run", reason="x").goes_to == SWEEP
    assert "plan_changed" in waited(admin, SWEEP, "did not come to its end").html.text
    assert world.catalog.last_sweep() is None


def test_nothing_runs_that_was_not_shown_to_this_operator(server: Server, world: World) -> None:
    admin, other = as_role(server, OperatorRole.ADMIN), as_role(server, OperatorRole.ADMIN, "bo")
    page = planned(admin)
    fields = page.form(f"{SWEEP}/run").fields | {"reason": "x"}
    own = other.get(SWEEP).form("/log-out").fields["form"]
    assert other.post(f"{SWEEP}/run", fields | {"form": own}).status == 409
    for changed in ({"allow_bulk": "1"}, {"decision": "0" * 32}, {"at": "1"}, {"at": "x"}, {"confirms": ""}):
        assert admin.post(f"{SWEEP}/run", fields | changed).status == 409, changed
    assert world.catalog.last_sweep() is None


def test_more_cameras_than_the_bulk_limit_are_shown_as_held_back(server: Server, world: World) -> None:
    devices = [1, world.add_device(), world.add_device()]
    past(world, 60)
    admin = as_role(server, OperatorRole.ADMIN)
    page = planned(admin)
    assert f"Cameras held back by the bulk limit {len(devices)}" in page.html.text
    page = planned(admin, allow_bulk="1")
    assert "with more cameras than the bulk limit" in waited(admin, SWEEP, "with more cameras").html.text
    page = admin.get(SWEEP)
    assert "Cameras erased 3" in page.html.text
    admin.fill(page, f"{SWEEP}/run", reason="they are all gone")
    assert "Cameras erased 3" in waited(admin, SWEEP, "ran").html.text


def test_one_errand_at_a_time_and_it_can_be_stopped(server: Server, errandry: Errandry) -> None:
    let_go = Event()
    errandry.hold = lambda: let_go.wait(20)
    try:
        admin = as_role(server, OperatorRole.ADMIN)
        begin = admin.get(SWEEP)
        admin.fill(begin, f"{SWEEP}/plan")
        shown = admin.get(SWEEP)
        assert "The dry run is under way" in shown.html.text
        assert 'data-fresh="2"' in shown.source
        busy = admin.fill(begin, f"{SWEEP}/plan")
        assert busy.status == 409
        assert "is under way here" in busy.html.text
        admin.fill(shown, "/operator/errand/stop")
        assert "it was stopped" in waited(admin, SWEEP, "did not come to its end").html.text
    finally:
        let_go.set()


def test_an_erasure_is_verified(server: Server, world: World) -> None:
    neighbour = world.add_device()
    world.keep(*clips(2))
    world.keep(*clips(2), device=neighbour)
    world.terminate()
    facts = world.catalog.device(1)
    world.catalog.note_keys_destroyed({1: (facts.erase_epoch, 1)}, fence=None, now_ms=world.clock.ms)
    admin = as_role(server, OperatorRole.ADMIN, "ann")
    page = admin.get("/operator/erasures")
    assert "terminated" in page.html.text
    admin.fill(page, "/operator/erasures/1/verify", reason="its owner asks")
    shown = waited(admin, "/operator/erasures", "Camera 1 is erased")
    assert "none decrypts" in shown.html.text
    assert "Camera 1 is erased" in admin.get("/operator/erasures?device=1").html.text
    token = page.form("/log-out").fields["form"]
    missing = admin.post("/operator/erasures/2/verify", {"form": token, "reason": "x"})
    assert missing.status == 404
    assert "There is none of this camera" in admin.get("/operator/erasures?device=2").html.text


def test_a_verification_that_fails_says_what_is_left(server: Server, world: World) -> None:
    world.keep(*clips(2))
    from retention.entitlements import Entitlements
    from retention.erasure import mark_terminated

    Entitlements(world.catalog, world.bitmap, world.clock).change(
        1, lambda facts: mark_terminated(facts, now_ms=world.clock.ms, erase=True), what="test"
    )
    facts = world.catalog.device(1)  # its keys are said to be gone, and are there
    world.catalog.note_keys_destroyed({1: (facts.erase_epoch, 1)}, fence=None, now_ms=world.clock.ms)
    admin = as_role(server, OperatorRole.ADMIN)
    admin.fill(admin.get("/operator/erasures"), "/operator/erasures/1/verify", reason="x")
    text = waited(admin, "/operator/erasures", "is not proved to be erased").html.text
    assert "1 of its keys are left" in text
    assert "Decrypts: device 1" in text
