"""`notices`: what owners are told, whether it reached them, and announcements to all of them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service import terminal
from service.agreement import announcing, notices, records, tidying
from service.agreement.consents import unsubscribe_url
from service.agreement.desk import OPERATOR, Desk
from service.agreement.notices import DeliveryReport
from service.agreement.outbox import addresses_of
from service.agreement.senders import open_senders
from service.agreement.templates import write_shipped
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.plans import MAX_NUMBER
from service.commands.showing import After, Limit, next_after, next_page, shown_notice, text_of, when
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.rows.accounts import AccountState, NoticeRow, NoticeState

BATCH = 20
"""Notices sent between two tellings of progress: a few seconds of a mail server."""
MAX_SENT = 10_000_000
PAGE = 1000

notices_app = typer.Typer(
    help="Notices to owners: list them, send what is due, confirm by hand, announce.", no_args_is_help=True
)


class Which(StrEnum):
    OPEN = "open"  # queued or failed
    QUEUED = "queued"
    FAILED = "failed"
    DELIVERED = "delivered"
    ALL = "all"


Subject = Annotated[str, typer.Option("--subject", help="One line.")]
Body = Annotated[str | None, typer.Option("--body", help="The text, when it is short.")]
BodyFile = Annotated[
    Path | None, typer.Option("--body-file", help="A file with the text, in UTF-8; - for stdin.")
]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference", help="What makes it the same one when repeated. Default: the day and the text."
    ),
]


@notices_app.command("list")
def notices_list(
    state: Annotated[
        Which,
        typer.Option("--state", help="open: queued or failed; or queued, failed, delivered, all."),
    ] = Which.OPEN,
    account: Annotated[
        int | None, typer.Option("--account", help="Only those of this account.", min=1, max=MAX_NUMBER)
    ] = None,
    after: After = 0,
    limit: Limit = 100,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List notices by number: those that wait to be sent and those that failed, unless --state says otherwise.

    A queued one is tried again at the time that is shown; a failed one was refused for good, or tried too often, and
    waits for you: mend the address with `clipkeep account update`, or tell the owner in another way and say so with
    `clipkeep notices confirm`.
    """
    with open_folder(data) as opened:
        acting(opened, as_)
        rows = _found(opened.desk, state, account, after, limit)
    shown = [shown_notice(row) for row in rows]

    def draw() -> None:
        columns = [
            "notice",
            "account",
            "purpose",
            "to",
            "state",
            "tries",
            "done or next try (UTC)",
            "what was said",
        ]
        terminal.table("notices", columns, [_cells(row) for row in rows])
        next_page(shown, limit, "notice")

    terminal.report({"notices": shown, "next": next_after(shown, limit, "notice")}, json, draw)


@notices_app.command("send")
def notices_send(
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=MAX_SENT)] = 100_000,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Send what is due, and let the cancellations of accounts take effect whose notices are all delivered.

    A running service does so every minute; this is for a folder that nothing serves, for cron, and for those who will
    not wait. Safe beside the service and beside itself; after Ctrl-C or a crash run it again, and it goes on: a notice
    may go out twice. What has become stale is forgotten, too. Exit code 1 when a notice failed for good.
    """
    with open_folder(data) as opened, terminal.progress_bar() as progress:
        desk = opened.desk
        senders = open_senders(
            opened.config.notices, opened.folder.notices, partial(unsubscribe_url, opened.desk)
        )
        with desk.reading() as books:
            due = min(limit, books.backlog(on=desk.today()).queued_notices)
        total = DeliveryReport()
        while (sent := _tried(total)) < limit:
            one = notices.deliver_due(desk, senders, limit=min(BATCH, limit - sent))
            total = _sum(total, one)
            if not _tried(one):
                break
            progress("notices", _tried(total), max(due, _tried(total)))
        forgotten = tidying.tidy(desk)
    settings = opened.config.notices
    into = opened.folder.notices if "files" in (settings.mail, settings.mobile) else None
    terminal.report({**asdict(total), "forgotten": forgotten}, json, lambda: _told_sent(total, into))
    if total.failed:
        terminal.say(
            f"{total.failed} notices failed for good: `clipkeep notices list --state failed` says why; mend the address"
            " or tell the owner in another way, then `clipkeep notices confirm`"
        )
        raise typer.Exit(1)


@notices_app.command("confirm")
def notices_confirm(
    notice: Annotated[
        int, typer.Option("--notice", help="The notice's number, see `notices list`.", min=1, max=MAX_NUMBER)
    ],
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Say that a notice reached its owner in another way: by letter, by phone. Then it counts as delivered.

    When the cancellation of an account waited for it alone, that takes effect at once, and everything about the account
    is erased (agreement 6.4). There is no way back from that.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = notices.confirm(opened.desk, actor, notice)
        state = records.account(opened.desk, actor, row.account).state
    cancelled = state is AccountState.CANCELLED
    ended = f"; account {row.account} is cancelled with it, and erased" if cancelled else ""
    terminal.report(
        {**shown_notice(row), "account_cancelled": cancelled},
        json,
        lambda: print(f"notice {notice} ({row.purpose}, account {row.account}) counts as delivered{ended}"),
    )


@notices_app.command("announce")
def notices_announce(
    subject: Subject,
    body: Body = None,
    body_file: BodyFile = None,
    reference: Reference = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", help="When it is planned to begin, UTC, such as 2027-05-03T02:00. With --until."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="When it is planned to be over; shown to anybody until then."),
    ] = None,
    suspended_too: Annotated[
        bool,
        typer.Option("--suspended-too", help="Suspended accounts are told, too; else they are left out."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many accounts would get it, and queue nothing.")
    ] = False,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Tell all active accounts of a change or an interruption of the service (agreement 3.1, 3.2).

    With --from and --until it is at `/v1/announcements` for anybody, without a log-in, until it is over, or taken back
    with `clipkeep notices withdraw`. Suspended accounts are told only with --suspended-too.

    A notice to each address of each account is queued; a running service sends them, or `clipkeep notices send`. Nobody
    gets an announcement twice: interrupted, repeat the same command on the same day, or with the same --reference.

    Example: `clipkeep notices announce --subject "Maintenance on 3 May" --body-file maintenance.txt
    --from 2027-05-03T02:00 --until 2027-05-03T04:00`
    """
    text = _text(body, body_file)
    window = _window(from_, until)
    with open_folder(data) as opened, terminal.progress_bar() as progress:
        actor = acting(opened, as_, reason)
        desk = opened.desk
        total, newest = _active(desk, suspended_too)
        if not dry_run:
            done = announcing.announce(
                desk,
                actor,
                subject,
                text,
                reference=reference,
                window=window,
                to_suspended=suspended_too,
                passed=lambda account: progress("accounts", min(account, newest), newest),
            )
    if dry_run:
        document = {"dry_run": True, "active_accounts": total}
        terminal.report(
            document, json, lambda: print(f"{total} active accounts would get it; nothing was queued")
        )
        return
    terminal.report(
        {"dry_run": False, "reference": done.reference, "accounts": done.accounts},
        json,
        lambda: print(f"queued for {done.accounts} accounts, under the reference {done.reference}"),
    )


@notices_app.command("advertise")
def notices_advertise(
    subject: Subject,
    body: Body = None,
    body_file: BodyFile = None,
    reference: Reference = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Send an offer to the owners who said that they want some (agreement 2.6), each once.

    Each gets a link that ends them, and mail programs a button (RFC 8058): set `[notices] public_url`. Who has said
    nothing gets none, unless `[agreement] advertise_unasked` says so. `clipkeep account consents` shows what was said.

    Example: `clipkeep notices advertise --subject "Thirty days for less" --body-file offer.txt`
    """
    text = _text(body, body_file)
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        done = announcing.advertise(opened.desk, actor, subject, text, reference=reference)
    terminal.report(
        {"reference": done.reference, "accounts": done.accounts},
        json,
        lambda: print(f"queued for {done.accounts} accounts, under the reference {done.reference}"),
    )


@notices_app.command("withdraw")
def notices_withdraw(
    reference: Annotated[
        str, typer.Option("--reference", help="Of the announcement, as `notices announce` told it.")
    ],
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Take an announcement with a planned window off `/v1/announcements`: it is off, or over early.

    Owners who were told are not told of that: announce it.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        announcing.withdraw(opened.desk, actor, reference)
    terminal.report({"reference": reference}, json, lambda: print(f"{reference} is shown no longer"))


@notices_app.command("templates")
def notices_templates(
    to: Annotated[
        Path | None,
        typer.Option("--to", help="A folder, new or empty: write the English ones there, to be translated."),
    ] = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Check the templates of notices, and list each with its fields; with --to write the English ones to begin with.

    Translate them, and name their folder as `[notices] templates` in config.toml. All have to be there, with no other
    fields than these; the service and every command refuse a folder in which one is missing or names another field.

    Example: `clipkeep notices templates --to clipkeep-data/templates`
    """
    if to is not None:
        written = write_shipped(to)
        terminal.report(
            {"written": written, "to": str(to)}, json, lambda: print(f"{written} templates in {to}")
        )
        return
    with open_folder(data) as opened:
        found = opened.templates()
    rows = [
        {"template": name, "fields": sorted(found[name].fields), "subject": found[name].subject}
        for name in found.names()
    ]

    def draw() -> None:
        cells = [[row["template"], " ".join(row["fields"]), row["subject"]] for row in rows]
        terminal.table("templates of notices", ["template", "fields", "subject"], cells)

    terminal.report({"templates": rows}, json, draw)


# --- parts --------------------------------------------------------------------------------------------------------


def _found(desk: Desk, which: Which, account: int | None, after: int, limit: int) -> list[NoticeRow]:
    states: list[NoticeState | None] = [None]
    if which is Which.OPEN:
        states = [NoticeState.QUEUED, NoticeState.FAILED]
    elif which is not Which.ALL:
        states = [NoticeState(which.value)]
    rows = [
        row
        for state in states
        for row in notices.listed(desk, OPERATOR, state=state, account=account, after=after, limit=limit)
    ]
    return sorted(rows, key=lambda row: row.notice_id)[:limit]


def _cells(row: NoticeRow) -> list[object]:
    at_ms = row.next_ms if row.state is NoticeState.QUEUED else row.settled_ms
    return [
        *(row.notice_id, row.account, row.purpose, row.address, row.state, row.attempts, when(at_ms)),
        row.error,
    ]


def _tried(report: DeliveryReport) -> int:
    return report.delivered + report.delayed + report.failed


def _sum(one: DeliveryReport, other: DeliveryReport) -> DeliveryReport:
    return DeliveryReport(
        one.delivered + other.delivered,
        one.delayed + other.delayed,
        one.failed + other.failed,
        one.closed_accounts + other.closed_accounts,
    )


def _told_sent(report: DeliveryReport, into: Path | None) -> None:
    print(
        f"{report.delivered} delivered, {report.delayed} to be tried again, {report.failed} failed for good"
    )
    if report.delivered and into is not None:
        print(f"those that go to files are in {into}")
    if report.closed_accounts:
        print(f"{report.closed_accounts} accounts are cancelled with that, and erased")


def _text(body: str | None, body_file: Path | None) -> str:
    """Of an announcement or an offer. Raises typer.BadParameter, unless just one of the two is given."""
    if body is not None and body_file is None:
        return body
    if body_file is None or body is not None:
        raise typer.BadParameter("give the text with --body or with --body-file")
    return text_of(body_file, "--body-file")


def _window(from_: str | None, until: str | None) -> announcing.Window | None:
    if (from_ is None) != (until is None):
        raise typer.BadParameter("give --from and --until, or neither")
    return None if from_ is None or until is None else announcing.Window(_instant(from_), _instant(until))


def _instant(text: str) -> int:
    """Unix ms of a time in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; write it as 2027-05-03T02:00, in UTC") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _active(desk: Desk, suspended_too: bool) -> tuple[int, int]:
    """How many active accounts there are that can be told something, and the number of the last."""
    total = after = 0
    while page := records.accounts(desk, OPERATOR, state=AccountState.ACTIVE, after=after, limit=PAGE):
        total += sum(bool(addresses_of(row)) and (suspended_too or row.suspended_ms is None) for row in page)
        after = page[-1].account
    return total, after


def register(app: typer.Typer) -> None:
    app.add_typer(notices_app, name="notices")
