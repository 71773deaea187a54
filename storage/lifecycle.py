"""The backstop: expiry rules in the store itself, for when no sweep runs any more. Pure.

One rule per retention class, because the class is a part of every key (`v1/{class_days}/…`): a rule can't know
a plan, and needs not to. A segment holds chunks that expire at most so many days after its PUT as `expiry_day` says of
their class, so a rule that fires later than that by some slack can never delete a live one, and comes later
than a sweep that runs. Rules are the plain mappings of S3's PutBucketLifecycleConfiguration.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from storage.days import expiry_day
from storage.errors import CallerError

Rule = dict[str, Any]

RULE_PREFIX = "clipkeep"
"""Every id of a rule of ours begins so, with the store's prefix behind it. Other rules are never touched."""
MAX_RULES = 1000
"""S3's limit for one bucket."""
ABORT_AFTER_DAYS = 1
"""Nothing here writes in parts: an upload that is there was begun by a tool, and forgotten."""
NONCURRENT_DAYS = 1
"""S3's smallest."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What applying the wanted rules would change."""

    add: tuple[Rule, ...]
    change: tuple[tuple[Rule, Rule], ...]
    """(as it is, as it will be)."""
    remove: tuple[Rule, ...]
    keep: int
    """Rules of ours that are right."""
    others: int
    """Rules of others."""

    @property
    def empty(self) -> bool:
        return not (self.add or self.change or self.remove)


def wanted_rules(
    prefix: str, classes: Collection[int], *, slack_days: int, noncurrent: bool = False
) -> list[Rule]:
    """The rules for a store.

    Args:
        prefix: of the store in its bucket: empty, or with a slash at its end.
        classes: retention classes, in days.
        slack_days: how much later than a sweep they fire.
        noncurrent: also expire what a versioned bucket keeps of deleted objects.
    """
    rules = [
        _rule(
            prefix,
            f"class-{days}",
            f"v1/{days}/",  # with the slash: class 3 is not class 30
            {"Expiration": {"Days": expiry_day(0, days) + slack_days}},
        )
        for days in sorted(set(classes))
    ]
    abort = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_AFTER_DAYS}}
    rules.append(_rule(prefix, "incomplete-uploads", "v1/", abort))
    if noncurrent:
        # Delete markers expire with the last version behind them.
        old = {
            "NoncurrentVersionExpiration": {"NoncurrentDays": NONCURRENT_DAYS},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        }
        rules.append(_rule(prefix, "old-versions", "v1/", old))
    return rules


def kinds_of(rules: Sequence[Rule]) -> dict[str, list[Rule]]:
    """Rules of ours by what they ask of a store, the dearest to us first, in the words of a person. Not every store has
    all of them: MinIO takes no rule that aborts uploads."""
    kinds: tuple[tuple[str, Callable[[Rule], bool]], ...] = (
        ("rules that expire objects", lambda rule: "Days" in rule.get("Expiration", {})),
        ("a rule that expires old versions", lambda rule: "NoncurrentVersionExpiration" in rule),
        ("a rule that aborts incomplete uploads", lambda rule: "AbortIncompleteMultipartUpload" in rule),
    )
    sorted_out = {name: [rule for rule in rules if belongs(rule)] for name, belongs in kinds}
    return {name: chosen for name, chosen in sorted_out.items() if chosen}


def difference(found: Sequence[Rule], wanted: Sequence[Rule], prefix: str) -> Difference:
    """Compare the bucket's rules with ours. Only rules whose id is of ours and of this prefix count."""
    ours = {rule["ID"]: rule for rule in found if _is_ours(rule, prefix)}
    want = {rule["ID"]: rule for rule in wanted}
    return Difference(
        add=tuple(rule for rule_id, rule in want.items() if rule_id not in ours),
        change=tuple(
            (ours[rule_id], rule)
            for rule_id, rule in want.items()
            if rule_id in ours and ours[rule_id] != rule
        ),
        remove=tuple(rule for rule_id, rule in ours.items() if rule_id not in want),
        keep=sum(ours.get(rule_id) == rule for rule_id, rule in want.items()),
        others=len(found) - len(ours),
    )


def merged(found: Sequence[Rule], wanted: Sequence[Rule], prefix: str) -> list[Rule]:
    """What to put: the rules of others as they are, then ours.

    Raises:
        CallerError: more than S3 takes.
    """
    rules = [*(rule for rule in found if not _is_ours(rule, prefix)), *wanted]
    if len(rules) > MAX_RULES:
        raise CallerError(f"{len(rules)} rules; S3 takes {MAX_RULES} a bucket", code="too_many_rules")
    return rules


def expires_old_versions(found: Sequence[Rule], prefix: str) -> bool:
    """Whether any enabled rule, of whoever, deletes noncurrent versions of everything below the prefix."""
    return any(
        rule.get("Status") == "Enabled"
        and "NoncurrentVersionExpiration" in rule
        and (reach := _reach(rule)) is not None
        and (prefix + "v1/").startswith(reach)
        for rule in found
    )


def _reach(rule: Rule) -> str | None:
    """The prefix that a rule is about; None when it also asks for tags or sizes."""
    chosen = rule.get("Filter", {"Prefix": rule.get("Prefix", "")})
    return str(chosen.get("Prefix", "")) if set(chosen) <= {"Prefix"} else None


def _rule(prefix: str, name: str, below: str, action: Rule) -> Rule:
    return {
        "ID": f"{_id_prefix(prefix)}{name}",
        "Filter": {"Prefix": prefix + below},
        "Status": "Enabled",
        **action,
    }


def _id_prefix(prefix: str) -> str:
    """Two stores in one bucket keep apart."""
    return f"{RULE_PREFIX}:{prefix}:"


def _is_ours(rule: Rule, prefix: str) -> bool:
    return str(rule.get("ID", "")).startswith(_id_prefix(prefix))
