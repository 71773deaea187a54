"""What owners call their devices, and finding one by that.

Names are sealed with the account's key, so they are searched within one account: its names are unsealed and looked
through. A blind index over all accounts was rejected: made with a key of the service it would still tell, after an
account is erased, whether somebody had a device of a guessed name; made with the account's it finds nothing across
accounts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from service.agreement.desk import Actor, Desk, account_of, device_of
from service.agreement.devices import Standing, show, standings
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.rows.devices import DeviceName

MAX_DEVICE_NAME_CHARS = 80
"""Of a name: what fits a line of a phone's screen twice."""
MAX_LABEL_CHARS = 200
"""Of a label: where it hangs, whose it is, as its owner likes."""
MAX_SEARCHED = 10_000
"""Names that one request looks through: 0.2 s of CPU. An owner has `max_devices_per_account` at most; only the
operator's own account may have more, and its search goes on page by page."""
_PAGE = 1000


def rename(
    desk: Desk, actor: Actor, device: int, *, name: str | None = None, label: str | None = None
) -> Standing:
    """What the device is called from now on; None leaves it, the empty text takes it away. It changes nothing else.

    Raises:
        NotFound: also for somebody else's device, and for one whose account has ended.
        Unprocessable: `bad_text`.
    """
    if name is not None:
        name = one_line(name, "the name", MAX_DEVICE_NAME_CHARS, least=0)
    if label is not None:
        label = one_line(label, "the label", MAX_LABEL_CHARS, least=0)

    def work(books: Books) -> None:
        facts = device_of(books, actor, device)
        account_of(books, actor, facts.account)
        old = books.device_names([device]).get(device, DeviceName(device, facts.account))
        new = DeviceName(
            device, facts.account, old.name if name is None else name, old.label if label is None else label
        )
        if new != old:
            books.put_device_name(new)
            now = {"name": new.name, "label": new.label}
            desk.record(books, actor, facts.account, "device_renamed", device=device, facts=now)

    desk.write(work)
    return show(desk, actor, device)


def named(
    desk: Desk, actor: Actor, account: int, text: str, *, after: int = 0, limit: int = 100
) -> tuple[list[Standing], int | None]:
    """Devices of an account whose name or label has this text in it, however it is written in small and capital
    letters, in order of number: those numbered above `after`.

    Returns:
        At most `limit`, and `after` of the next page, None when all names were looked through. A page may be empty and
        not the last: see MAX_SEARCHED.

    Raises:
        NotFound.
    """
    wanted = _folded(text)
    found: list[int] = []
    following: int | None = None
    with desk.reading() as books:
        account_of(books, actor, account)
        for searched, row in enumerate(_names(books, account, after)):
            if len(found) == limit or searched == MAX_SEARCHED:
                break
            following = row.device
            if wanted in _folded(row.name) or wanted in _folded(row.label):
                found.append(row.device)
        else:
            following = None
    facts = desk.catalog.devices_numbered(found)
    return standings(desk, lambda books: facts), following


def _names(books: Books, account: int, after: int) -> Iterator[DeviceName]:
    while page := books.named_devices(account, after=after, limit=_PAGE):
        yield from page
        after = page[-1].device


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
