"""A closing that takes effect, killed at every step: the run after it leaves the same end, whatever the step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from service.agreement import closing, registration
from service.agreement.desk import OPERATOR
from service.agreement.errors import Conflict
from storage.days import day_of_ms
from storage.rows.accounts import AccountState
from storage.rows.devices import EraseState
from tests.retention.world import NOON, Kept, fast_folder
from tests.servers.catalogs import drop_catalog
from tests.service.agreement.killed_closings import DEVICES, NEIGHBOUR, SETTLED_MS, prepare
from tests.service.agreement.office import EMAIL, MOBILE, Office, refused

ROOT = Path(__file__).parents[3]
ACCOUNT = 2
DAY_MS = 86_400_000


def half_way(office: Office) -> None:
    """What must hold at any moment, before anybody goes on: all of the account is there, or none of it; nobody is
    served what the catalog denies; the neighbour is as it was."""
    cancelled = office.row(ACCOUNT).state is AccountState.CANCELLED
    served = [office.serves(device, NOON)[0] for device in DEVICES]
    if cancelled:
        assert served == [False, False]
        assert not office.events(ACCOUNT)
        assert all(office.catalog.device(d).erase_state is EraseState.ERASING for d in DEVICES)
    else:
        # The bitmap may deny already, until it is mended; it never allows more.
        assert office.row(ACCOUNT).email == EMAIL
        assert len(office.notices(ACCOUNT, "closing")) == 2
        assert office.catalog.device(1).terminated_ms is None
    assert office.serves(NEIGHBOUR, NOON) == [True]


def finished(folder: Path, kept: list[Kept]) -> dict[str, Any]:
    """What is left after the settling that follows a kill, and one more."""
    with Office(folder, clock_ms=SETTLED_MS, local=True) as office:
        office.kept = kept
        half_way(office)
        closing.settle(office.desk)
        state = end(office)
        assert closing.settle(office.desk) == []
        assert end(office) == state
        assert office.bitmap.unfinished == 0
        assert not any(office.catalog.broken_rows())
        reserved(office)
        return state


def end(office: Office) -> dict[str, Any]:
    return {
        "account": office.row(ACCOUNT),
        "left": [office.notices(ACCOUNT), office.events(ACCOUNT)],
        "devices": [office.catalog.device(device) for device in (*DEVICES, NEIGHBOUR)],
        "bitmap": [allowed(office, device) for device in (*DEVICES, NEIGHBOUR)],
        "served": [office.serves(device, NOON) for device in (*DEVICES, NEIGHBOUR)],
        "attacked": office.attacked(),
        "keys": office.vault.count(),
    }


def allowed(office: Office, device: int) -> tuple[int, int, list[int]]:
    """What the bitmap says: flags, epoch, and the entitled ones of the next 90 days. (How far a row reaches depends on
    the day on which it was compiled.)"""
    row = office.bitmap.read(device)
    assert row is not None
    days = range(office.entitlements.today(), office.entitlements.today() + 90)
    return row.flags, row.erase_epoch, [day for day in days if row.days >> (day - row.first_day) & 1]


def reserved(office: Office) -> None:
    """Through the tenth day after the delivery of the notices, not after the run."""
    effective_ms = NOON - NOON % DAY_MS
    other = ACCOUNT + 1
    for days, taken in ((10, True), (11, False)):
        office.clock.ms = effective_ms + days * DAY_MS
        for kind, address in (("email", EMAIL), ("mobile", MOBILE)):
            change = {kind: address}
            if taken:
                with refused(Conflict, "address_reserved"):
                    registration.update(office.desk, OPERATOR, other, **change)
            else:
                registration.update(office.desk, OPERATOR, other, **change)


def test_killed_at_every_step_a_closing_ends_the_same() -> None:
    with fast_folder() as folder:
        kept = prepare(folder / "template")
        command = [sys.executable, "-m", "tests.service.agreement.killed_closings", str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300, cwd=ROOT)
        outcomes = [json.loads(line) for line in done.stdout.splitlines()]
        assert [o["killed"] for o in outcomes] == [True] * (len(outcomes) - 1) + [False]
        steps = {"change_device", "reserve_address", "erase_account", "commit", "write", "destroy_devices"}
        assert steps | {"approved_closings", "set_last_change", "overwrite_erased"} <= {
            o["step"] for o in outcomes
        }
        expected = finished(folder / "template", kept)
        assert expected["account"].cancelled_on == day_of_ms(NOON)
        assert expected["attacked"] == {(NEIGHBOUR, NOON)}
        assert expected["served"] == [[False], [False], [True]]
        for outcome in outcomes:
            assert finished(Path(outcome["folder"]), kept) == expected, outcome
            shutil.rmtree(outcome["folder"])
            drop_catalog(Path(outcome["folder"]))
