"""How recordings end: by age, by a lapse, by the operator; and what a sweep makes of it."""

from __future__ import annotations

from typing import Any

from service.agreement.packages import TRIAL_DAYS, TRIAL_RETENTION_DAYS
from service.config import RetentionSettings
from service.demo.processes import DAY_MS, HOUR_MS
from service.demo.stage import Camera, Stage
from storage.days import expiry_day

GRACE_DAYS = RetentionSettings().lapse_grace_days
DELETE_DELAY_S = RetentionSettings().delete_delay_s
"""As the demo's folder has them; the demo fails when the service does otherwise."""


async def age(stage: Stage) -> None:
    """A trial's chunks expire after seven days; two passes of the sweep take their objects away."""
    clipkeep, show, trial = stage.clipkeep, stage.show, _trial(stage)
    capture_ms = stage.first_from_ms
    await clipkeep.advance(expiry_day(0, TRIAL_RETENTION_DAYS) * DAY_MS)
    said = str(await stage.viewer(trial).chunk(capture_ms))
    show.check("a trial's chunk when 8 days old", "410 expired", said, said == "410 expired")
    before, passes, after = await _sweep_twice(stage)
    chunks = len(trial.filmed().chunks)
    unindexed = sum(report["unindexed_chunks"] for report in passes)
    deleted = sum(report["deleted_objects"] for report in passes)
    show.check(
        "sweep: the trial's expired week",
        f"{chunks} chunks go",
        f"{unindexed} chunks, {_change(before, after)}",
        unindexed == chunks and _shrank(before, after, deleted),
    )


async def end_rights(stage: Stage) -> None:
    """Across the midnight at which the trial lapses, and a termination: unreadable from the next request on."""
    clipkeep, show, trial, ended = stage.clipkeep, stage.show, _trial(stage), _ended(stage)
    lapse_ms = (stage.first_from_ms // DAY_MS + TRIAL_DAYS) * DAY_MS
    await clipkeep.advance(lapse_ms - 60_000 - clipkeep.now_ms())
    begin_ms = clipkeep.now_ms() - stage.seconds * 1000
    await stage.simulator(trial).send_all(trial.filmed().at(begin_ms))
    last_minute = str(await stage.viewer(trial).chunk(begin_ms))
    await clipkeep.advance(lapse_ms + 1000 - clipkeep.now_ms())
    after = str(await stage.viewer(trial).chunk(begin_ms))
    show.check(
        "the trial's video at 23:59 and 00:00",
        "200, then 403 plan_lapsed",
        f"{last_minute}, then {after}",
        (last_minute, after) == ("200", "403 plan_lapsed"),
    )
    said = await stage.upload(trial)
    show.check("its camera uploads at 00:00", "403 plan_lapsed", said, said == "403 plan_lapsed")
    before = await stage.look(ended)
    await clipkeep.run("device", "terminate", "--device", str(ended.device), "--reason", "demo")
    looks, upload = await stage.look(ended), await stage.upload(ended)
    show.check(
        "a camera is terminated",
        "200, then 403 terminated",
        f"{before}, then {looks}" + (f", upload {upload}" if upload != str(looks) else ""),
        (str(before), str(looks), upload) == ("200", "403 terminated", "403 terminated"),
    )
    await stage.play(stage.staying, f"the other {len(stage.staying)} play, after 14 days")


async def erase(stage: Stage) -> None:
    """Past the grace the keys go, and with them every chance to read; objects without a live chunk follow."""
    clipkeep, show = stage.clipkeep, stage.show
    await clipkeep.advance((GRACE_DAYS + 1) * DAY_MS)
    before, passes, after = await _sweep_twice(stage)
    erased = {entry["device"] for report in passes for entry in report["erased_devices"]}
    keys = sum(report["destroyed_keys"] for report in passes)
    leaving = {camera.device for camera in stage.leaving}
    show.check(
        "sweep: the keys of those two cameras",
        f"{len(leaving)} devices erased",
        f"{len(erased)} devices, {keys} keys destroyed",
        erased == leaving and keys >= len(leaving),
    )
    deleted = sum(report["deleted_objects"] for report in passes)
    show.check(
        "sweep: objects with nothing left",
        "they go, others stay",
        _change(before, after),
        _shrank(before, after, deleted),
    )
    show.say(
        "the terminated camera's bytes share objects with its neighbours': unreadable now, gone with those"
    )
    await stage.play(stage.staying, f"the other {len(stage.staying)} play, after 18 days")


async def _sweep_twice(stage: Stage) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """One pass un-indexes; the objects go with a pass after the delay. What `check` said before, both reports, and
    what it said after."""
    before = await stage.clipkeep.run("check", ok=(0, 1))
    first = await stage.clipkeep.run("sweep")
    await stage.clipkeep.advance(round(DELETE_DELAY_S * 1000) + HOUR_MS)
    second = await stage.clipkeep.run("sweep")
    after = await stage.clipkeep.run("check", ok=(0, 1))
    return before, [first, second], after


def _shrank(before: dict[str, Any], after: dict[str, Any], deleted: int) -> bool:
    """Some objects went, not all, just those that the sweep says it deleted; and catalog and store agree."""
    gone = before["objects"] - after["objects"]
    fewer_bytes = 0 < after["object_bytes"] < before["object_bytes"]
    return gone == deleted > 0 and fewer_bytes and not before["broken"] and not after["broken"]


def _change(before: dict[str, Any], after: dict[str, Any]) -> str:
    return (
        f"{before['objects']} → {after['objects']} objects,"
        f" {before['object_bytes'] / 1e6:.1f} → {after['object_bytes'] / 1e6:.1f} MB"
    )


def _trial(stage: Stage) -> Camera:
    assert stage.trial is not None, "set_up() comes first"
    return stage.trial


def _ended(stage: Stage) -> Camera:
    assert stage.ended is not None, "set_up() comes first"
    return stage.ended
