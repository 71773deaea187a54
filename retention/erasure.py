"""When a device's recordings are destroyed, and what its facts say on the way. Pure.

    NONE → ERASING   decided, under a new erase epoch: what was admitted under the old one loses its commit
    ERASING → ERASED the keys and rows of earlier epochs are gone
    → NONE           a renewal: the device begins empty, under the new epoch

A renewal may come while the erasure is under way. The device records at once, and the reason says so, because
its erasure then ends in NONE: what it recorded since is subject to the next lapse.
"""

from __future__ import annotations

from dataclasses import replace

from retention.entitlements import entitled_from
from storage.days import MS_PER_DAY
from storage.rows.devices import DeviceFacts, EraseState

RENEWED = ", renewed since"


def erase_cause(facts: DeviceFacts) -> str:
    """Why a device's recordings are destroyed."""
    if facts.erase_state is not EraseState.NONE:
        return facts.erase_reason
    return "terminated" if facts.terminated_ms is not None else "lapsed"


def to_be_erased(facts: DeviceFacts, *, now_ms: int, today: int, grace_days: int) -> bool:
    """Whether a device is to be marked for erasure: the catalog's facts alone decide, never the bitmap.

    A terminated device when `grace_days` have passed since; another when its last entitled day lies more than
    `grace_days` back. A device that never had a day of a plan has nothing to erase.
    """
    if facts.erase_state is not EraseState.NONE:
        return False
    if facts.terminated_ms is not None:
        return now_ms - facts.terminated_ms >= grace_days * MS_PER_DAY
    return entitled_from(facts, 0) and not entitled_from(facts, today - grace_days)


def mark_erasing(facts: DeviceFacts, reason: str) -> DeviceFacts:
    """Decided: a new epoch, so that nothing of before is served, committed or decrypted again."""
    return replace(
        facts, erase_state=EraseState.ERASING, erase_epoch=facts.erase_epoch + 1, erase_reason=reason
    )


def mark_terminated(facts: DeviceFacts, *, now_ms: int, erase: bool) -> DeviceFacts:
    """Denied for good; with `erase` the keys are to go without grace. Safe to repeat."""
    if facts.terminated_ms is None:
        facts = replace(facts, terminated_ms=now_ms)
    return mark_erasing(facts, "terminated") if erase and not _under_way(facts) else facts


def mark_account_cancelled(facts: DeviceFacts, *, now_ms: int, reason: str) -> DeviceFacts:
    """Its account was cancelled: denied for good, and the keys are to go at once (agreement 6.5.3). Safe to repeat."""
    facts = mark_terminated(facts, now_ms=now_ms, erase=False)
    return facts if _under_way(facts) else mark_erasing(facts, reason)


def mark_renewed(facts: DeviceFacts) -> DeviceFacts:
    """A plan was started. What is being erased stays lost."""
    if facts.erase_state is EraseState.ERASED:
        return replace(facts, erase_state=EraseState.NONE)
    if facts.erase_state is EraseState.ERASING and not _renewed(facts):
        return replace(facts, erase_reason=facts.erase_reason + RENEWED)
    return facts


def mark_erased(facts: DeviceFacts, *, epoch: int) -> DeviceFacts:
    """Keys and rows below `epoch` are gone. A device that was marked anew meanwhile is not done."""
    if facts.erase_state is not EraseState.ERASING or facts.erase_epoch != epoch:
        return facts
    return replace(facts, erase_state=EraseState.NONE if _renewed(facts) else EraseState.ERASED)


def _under_way(facts: DeviceFacts) -> bool:
    """Whether all that the device ever recorded is being erased, or is."""
    return facts.erase_state is not EraseState.NONE and not _renewed(facts)


def _renewed(facts: DeviceFacts) -> bool:
    return facts.erase_state is EraseState.ERASING and facts.erase_reason.endswith(RENEWED)
