"""`store setup`: the backstop in the store itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from retention import home_store
from service import terminal
from service.agreement import packages
from service.folder import Opened, open_folder
from service.terminal import DEFAULT_DATA, Data, Json, Store
from storage.errors import StoreDenied, StoreLacks
from storage.lifecycle import (
    Rule,
    difference,
    expires_old_versions,
    kinds_of,
    merged,
    wanted_rules,
)
from storage.objects import ObjectStore
from storage.trial import IGNORES, ignores_checksums

if TYPE_CHECKING:
    from storage.s3 import S3Store

store_app = typer.Typer(help="The object store: its own expiry rules.", no_args_is_help=True)


@store_app.command("setup")
def store_setup(
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the rules; without it they are only shown.")
    ] = False,
    expire_old_versions: Annotated[
        bool,
        typer.Option(
            "--expire-old-versions",
            help="On a versioned bucket: also a rule that deletes what a delete only hid.",
        ),
    ] = False,
    data: Data = DEFAULT_DATA,
    store: Store = None,
    json: Json = False,
) -> None:
    """Show, or write, the bucket's expiry rules: a backstop for when no sweep runs.

    One rule per retention class of what is sold or stored, later than the sweep by [retention] lifecycle_slack_days,
    and one that aborts incomplete multipart uploads. Rules of others stay as they are. Run it again after `package
    add`; a second run changes nothing.
    """
    with open_folder(data, store_url=store) as opened:
        document = _setup(opened, opened.store, apply=apply, old_versions=expire_old_versions)
    terminal.report(document, json, lambda: _show(document))
    for warning in document["warnings"]:
        terminal.say(f"warning: {warning}")


@store_app.command("accept")
def store_accept(data: Data = DEFAULT_DATA, store: Store = None, json: Json = False) -> None:
    """Say that this store is this home's, when the earlier one is lost, or all its objects were moved here.

    Each home keeps its number in its store (sweep/home), and `clipkeep serve`, `clipkeep sweep` and `clipkeep host
    join` refuse another one (another_store): mostly a wrong address. Correct that first: whatever is in the store that
    you leave is neither served nor deleted any more.
    """
    with open_folder(data, store_url=store) as opened:
        home_store.accept(opened.catalog, opened.store)
        url = opened.store_url
    terminal.report({"store": url}, json, lambda: print(f"{url} is this home's store"))


def classes_in_use(opened: Opened) -> set[int]:
    """The retention classes that need a rule: of what is sold, also from a later day on, and of what is stored."""
    today = opened.desk.date()
    return set(opened.catalog.retention_classes()) | {
        package.retention_days
        for package in packages.listed(opened.desk, every=True)
        if package.sold_until is None or package.sold_until >= max(today, package.sold_from)
    }


def _setup(opened: Opened, store: ObjectStore, *, apply: bool, old_versions: bool) -> dict[str, Any]:
    if not opened.store_url.startswith("s3:"):
        return {"store": opened.store_url, "supported": False, "applied": False, "warnings": []}
    # Imported here: boto3 takes a fifth of a second, which a command on a local store need not wait for.
    from storage.s3 import S3Store

    assert isinstance(store, S3Store), "that is what an s3: URL opens"
    retention = opened.config.retention
    prefix = store.key_prefix
    warnings = [IGNORES] if apply and ignores_checksums(store) else []
    try:
        found = store.lifecycle_rules()
    except StoreLacks:
        return {"store": opened.store_url, "supported": False, "applied": False, "warnings": warnings}
    wanted = wanted_rules(
        prefix,
        classes_in_use(opened),
        slack_days=retention.lifecycle_slack_days,
        noncurrent=old_versions or _has_old_versions_rule(found, prefix),
    )
    change = difference(found, wanted, prefix)
    if apply and not change.empty:
        warnings += _write(store, found, wanted)
    if _keeps_old_versions(store) and not expires_old_versions([*found, *wanted], prefix):
        warnings.append(
            "the bucket keeps old versions and no rule deletes them, so deleted recordings stay as bytes (their keys go"
            " all the same). Add one with --expire-old-versions"
        )
    return {
        "store": opened.store_url,
        "supported": True,
        "applied": apply,
        "add": list(change.add),
        "change": [{"from": old, "to": new} for old, new in change.change],
        "remove": list(change.remove),
        "kept": change.keep,
        "others": change.others,
        "warnings": warnings,
    }


def _write(store: S3Store, found: list[Rule], wanted: list[Rule]) -> list[str]:
    """Put the rules. Where the store does not take all of them, those kinds of rules that it takes.

    Returns:
        What was not taken, each as a sentence.

    Raises:
        StoreDenied: it takes none.
    """
    prefix = store.key_prefix
    try:
        store.put_lifecycle_rules(merged(found, wanted, prefix))
    except StoreDenied as refusal:
        taken: list[Rule] = []
        warnings = []
        for kind, rules in kinds_of(wanted).items():
            try:
                store.put_lifecycle_rules(merged(found, [*taken, *rules], prefix))
            except StoreDenied as error:
                warnings.append(f"the store does not take {kind}: {error}")
            else:
                taken += rules
        if not taken:
            raise refusal
        return warnings
    return []


def _keeps_old_versions(store: S3Store) -> bool:
    try:
        return store.keeps_old_versions()
    except StoreLacks:
        return False


def _has_old_versions_rule(found: list[Rule], prefix: str) -> bool:
    """Asked for once, it stays."""
    [rule] = [
        r
        for r in wanted_rules(prefix, (), slack_days=1, noncurrent=True)
        if "NoncurrentVersionExpiration" in r
    ]
    return any(r.get("ID") == rule["ID"] for r in found)


def _show(document: dict[str, Any]) -> None:
    if not document["supported"]:
        print(
            f"{document['store']} has no expiry rules of its own: there is nothing to set up. The sweep is all"
        )
        return
    lines = [f"+ {_told(rule)}" for rule in document["add"]]
    lines += [f"~ {_told(pair['from'])}  →  {_told(pair['to'])}" for pair in document["change"]]
    lines += [f"- {_told(rule)}" for rule in document["remove"]]
    print("\n".join(lines) if lines else "the bucket's rules are as they are to be")
    print(f"{document['kept']} rules of ours stay, {document['others']} of others are not touched")
    if lines:
        print("written" if document["applied"] else "nothing was changed: write them with --apply")


def _told(rule: Rule) -> str:
    """One rule on one line."""
    said = {key: value for key, value in rule.items() if key not in ("ID", "Filter", "Status")}
    numbers = ", ".join(f"{name} {value}" for action in said.values() for name, value in action.items())
    paused = "" if rule.get("Status") == "Enabled" else " (disabled)"
    return f"{rule['ID']}: {rule.get('Filter', {}).get('Prefix', '?')} {numbers}{paused}"


def register(app: typer.Typer) -> None:
    app.add_typer(store_app, name="store")
