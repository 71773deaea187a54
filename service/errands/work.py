"""What each errand does on an opened data folder. Blocks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from retention.proof import Prover
from retention.sweep import Progress, Sweep
from service.commands.sweeping import left_undone, sweep_of
from service.commands.sweeps import failures_noted
from service.errands.running import Errand, Kind
from service.folder import Opened
from storage.errors import NotFound

MAX_SHOWN = 200
"""Of each list of a plan, or of a report; the counts are of all."""
_LISTS = ("expire", "reclaim", "finish_deletions", "erase", "held_back", "rewrite")


def carried_out(opened: Opened, errand: Errand, progress: Progress) -> dict[str, Any]:
    """Do it. Returns a JSON object of some 100 KB at most.

    Raises:
        SweepRefused; NotFound; WorldError: as the sweep and `Prover` do.
    """
    if errand.kind is Kind.VERIFY:
        return _verified(opened, errand.device, progress)
    one_pass = sweep_of(opened, progress, who=f"operator {errand.who}")
    opened.require_own_store()
    if errand.kind is Kind.PLAN:
        return planned(one_pass, allow_bulk=errand.allow_bulk)
    with failures_noted(opened, one_pass):
        return swept(one_pass, errand)


def planned(one_pass: Sweep, *, allow_bulk: bool) -> dict[str, Any]:
    """What `clipkeep sweep --dry-run` shows, cut to what a page holds; `decision` confirms it."""
    plan = one_pass.plan(allow_bulk=allow_bulk)
    found = plan.summary()
    counts = {name: len(found[name]) for name in _LISTS}
    shown = {name: found[name][:MAX_SHOWN] for name in _LISTS}
    return found | shown | {"counts": counts, "decision": plan.decision, "allow_bulk": allow_bulk}


def swept(one_pass: Sweep, errand: Errand) -> dict[str, Any]:
    """The report of a pass, and what it left undone."""
    report = one_pass.run(allow_bulk=errand.allow_bulk, confirmed=errand.confirmed)
    found = report.as_dict()
    found["erased_devices"] = found["erased_devices"][:MAX_SHOWN]
    return found | {"left": left_undone(report)}


def _verified(opened: Opened, device: int, progress: Progress) -> dict[str, Any]:
    records = opened.catalog.erasures(device=device)
    if not records:
        raise NotFound("nothing of this device was ever marked for erasure", subject=f"device {device}")
    record = records[-1]
    proof = Prover(opened.catalog, opened.store, opened.vault, (), progress).prove(device, record.epoch)
    if proof.holds:
        opened.catalog.note_verified(record.erasure_id, proof.told(), now_ms=opened.clock.now_ms())
    return {**asdict(proof), "holds": proof.holds, "told": proof.told()}
