"""Share links: an owner shows a range of one device to whoever has the link, until it expires or is revoked.

The link is a token that names a row of the catalog (`retention.tokens`): with it whoever has it reads the chunks that
begin in the range, and nothing else, neither live nor what the account says. It is void with the row, and with all that
voids viewers' tokens.
"""

from __future__ import annotations

import math

from retention.tokens import ShareClaims, mint_share_token
from service.agreement.desk import Actor, Desk, device_of
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.days import MAX_TIME_MS, ms_of_day
from storage.errors import NotFound
from storage.rows.devices import DeviceFacts
from storage.rows.shares import ShareRow

SHOWN_MS = 30 * 86_400_000
"""For so long after its end a link is listed, unless room is needed for another one."""


def create(
    desk: Desk, actor: Actor, device: int, from_ms: int, to_ms: int, *, hours: float
) -> tuple[ShareRow, str]:
    """A link to what was captured at `from_ms <= t < to_ms` (Unix ms), and its token, which is told this once.

    Raises:
        NotFound, also for somebody else's device.
        Conflict: `too_many_shares`: `max_shares_per_device` are in use.
        Unprocessable: `bad_range`; `bad_hours`: more than `max_share_days`.
    """
    if not 0 <= from_ms < to_ms <= MAX_TIME_MS:
        raise Unprocessable("a range ends after it begins", subject=f"device {device}", code="bad_range")
    most_days = desk.settings.max_share_days
    if not math.isfinite(hours) or not 0 < hours <= most_days * 24:
        raise Unprocessable(f"a link lasts more than 0 and at most {most_days * 24} hours", code="bad_hours")
    # By the time that readers are judged by; whole seconds, which is what a token says.
    now_ms = max(desk.now_ms(), ms_of_day(desk.today()))
    expires_s = now_ms // 1000 + max(1, round(hours * 3600))

    def work(books: Books) -> ShareRow:
        facts = device_of(books, actor, device)
        books.drop_shares(before_ms=now_ms - SHOWN_MS, device=device)
        most = desk.settings.max_shares_per_device
        if len(books.shares_of(device, limit=most)) >= most:
            books.drop_shares(before_ms=now_ms, device=device)
            if len(books.shares_of(device, limit=most)) >= most:
                raise Conflict(
                    f"a device has at most {most} links; revoke one",
                    subject=f"device {device}",
                    code="too_many_shares",
                )
        row = books.add_share(
            ShareRow(
                0,
                facts.account,
                device,
                from_ms,
                to_ms,
                desk.now_ms(),
                expires_s * 1000,
                facts.token_generation,
                facts.viewer_generation,
            )
        )
        about = {"share": row.share_id, "from_ms": from_ms, "to_ms": to_ms, "until_ms": row.expires_ms}
        desk.record(books, actor, facts.account, "share_made", device=device, facts=about)
        return row

    row = desk.write(work)
    claims = ShareClaims(
        device, row.token_generation, expires_s, row.viewer_generation, row.share_id, from_ms, to_ms
    )
    return row, mint_share_token(desk.vault.token_secret, claims)


def listed(desk: Desk, actor: Actor, device: int) -> list[tuple[ShareRow, str]]:
    """The links of a device by number, each with its state: `live`, `expired`, or `void` since the device's or the
    viewers' tokens were renewed. Those that are over are listed for a while. Raises NotFound."""
    with desk.reading() as books:
        facts = device_of(books, actor, device)
        rows = books.shares_of(device, limit=desk.settings.max_shares_per_device)
    now_ms = max(desk.now_ms(), ms_of_day(desk.today()))
    return [(row, state_of(row, facts, now_ms)) for row in rows]


def state_of(row: ShareRow, facts: DeviceFacts, now_ms: int) -> str:
    if row.expires_ms <= now_ms:
        return "expired"
    made = (row.token_generation, row.viewer_generation)
    return "live" if made == (facts.token_generation, facts.viewer_generation) else "void"


def revoke(desk: Desk, actor: Actor, device: int, share: int, *, why: str = "") -> None:
    """End a link: every host acts on it within a second or two (`service.playback.shared`).

    Raises:
        NotFound: there is no such link of this device; Unprocessable: `bad_text`, the reason.
    """
    why = one_line(why, "the reason", least=0)

    def work(books: Books) -> None:
        facts = device_of(books, actor, device)
        if not books.drop_share(device, share):
            raise NotFound("there is no such link of this device", subject=f"share {share}")
        desk.record(
            books, actor, facts.account, "share_revoked", why=why, device=device, facts={"share": share}
        )

    desk.write(work)
