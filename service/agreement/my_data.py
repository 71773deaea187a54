"""“My data”: an owner downloads all that is kept about the account.

Asked for, made in the background by whichever process comes to it (`make_next`), announced to the owner, there for a
week. One at a time for each account. The file lies in the object store, in objects of sealed frames: their key is in
the books, sealed with the account's, so that an account that ends takes it along; the objects follow.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.agreement.archive import Archive, TooLarge
from service.agreement.desk import Actor, Desk, account_of
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.limits import count_use
from service.agreement.outbox import tell
from storage.catalog.books import Books
from storage.catalog.reading import ReadingCatalog
from storage.days import MS_PER_DAY
from storage.errors import CallerError, CorruptError, NotFound, WorldError
from storage.objects import DELETE_BATCH_KEYS, ObjectStore
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountState
from storage.rows.people import ExportRow, ExportState

KEPT_DAYS = 7
CLAIM_MS = 3_600_000
"""For which whoever makes one is left alone; after that another process begins anew."""
FRAME_BYTES = 256 * 1024
"""Sealed by itself, and all that a download holds at a time."""
FRAMES = 16
"""In one object: 4 MiB."""
MADE_PER_H = 3
"""Of an account: each costs a reading of all that there is, also one that comes to nothing."""
DOWNLOADS_PER_H = 20
FOLDER = "exports"
_NONCE, _TAG = 12, 16
_SEALED = FRAME_BYTES + _NONCE + _TAG


def ask(desk: Desk, actor: Actor, account: int) -> ExportRow:
    """Have it made.

    Raises:
        NotFound; Conflict: `export_there`: one is being made, or can still be downloaded; `not_activated`; TooMany:
            `slow_down`: those before were too large.
    """

    def work(books: Books) -> ExportRow | CallerError:
        row = account_of(books, actor, account)
        if row.state is not AccountState.ACTIVE or account == OPERATOR_ACCOUNT:
            raise Unprocessable(
                "it is no active owner's account", subject=f"account {account}", code="not_activated"
            )
        for before in books.exports(account=account):
            if before.state is not ExportState.FAILED and before.expires_ms > desk.now_ms():
                raise Conflict(
                    "one is being made, or is there to be downloaded; ask again when it is gone",
                    subject=f"export {before.export_id}",
                    code="export_there",
                )
        refused = count_use(desk, books, f"export:made:account:{account}", MADE_PER_H)
        if refused is not None:
            return refused
        now_ms = desk.now_ms()
        made = books.add_export(
            ExportRow(0, account, ExportState.QUEUED, now_ms, now_ms + KEPT_DAYS * MS_PER_DAY)
        )
        desk.record(books, actor, account, "export_asked", facts={"export": made.export_id})
        return made

    return desk.write(work)


def listed(desk: Desk, actor: Actor, account: int) -> list[ExportRow]:
    """Those that are made, or there. Raises NotFound."""
    with desk.reading() as books:
        account_of(books, actor, account)
        return [row for row in books.exports(account=account) if row.expires_ms > desk.now_ms()]


def begin(desk: Desk, actor: Actor, account: int, export_id: int) -> ExportRow:
    """A download begins, which the history says.

    Raises:
        NotFound; Conflict: `export_not_ready`; TooMany: `slow_down`.
    """

    def work(books: Books) -> ExportRow | CallerError:
        account_of(books, actor, account)
        found = [row for row in books.exports(account=account) if row.export_id == export_id]
        if not found or found[0].expires_ms <= desk.now_ms():
            raise NotFound(
                "there is no such download; it is gone after a week", subject=f"export {export_id}"
            )
        if found[0].state is not ExportState.READY:
            raise Conflict(
                "it is not ready; its owner is told when it is",
                subject=f"export {export_id}",
                code="export_not_ready",
            )
        refused = count_use(desk, books, f"export:account:{account}", DOWNLOADS_PER_H)
        if refused is not None:
            return refused
        desk.record(books, actor, account, "export_downloaded", facts={"export": export_id})
        return found[0]

    return desk.write(work)


def frames(row: ExportRow) -> int:
    return -(-row.length // FRAME_BYTES)


def read_frame(store: ObjectStore, row: ExportRow, number: int) -> bytes:
    """A frame of the file.

    Raises:
        CorruptError: it was not sealed with this key for this place; WorldError of the store.
    """
    within = number % FRAMES
    plain = min(FRAME_BYTES, row.length - number * FRAME_BYTES)
    sealed = store.get_range(_key(row, number // FRAMES), within * _SEALED, plain + _NONCE + _TAG)
    try:
        return AESGCM(bytes.fromhex(row.secret)).decrypt(
            sealed[:_NONCE], sealed[_NONCE:], _place(row, number)
        )
    except InvalidTag as error:
        raise CorruptError("not sealed with its key", subject=_key(row, number // FRAMES)) from error


def make_next(desk: Desk, store: ObjectStore, recordings: ReadingCatalog, folder: Path) -> int:
    """Make the one that waits longest; nothing to do most of the time. Safe in several processes at once, and killed
    anywhere it is begun anew. Returns how many were made.

    Args:
        folder: for the file while it is made: on the disk of this host, `export_max_bytes` at most.
    """
    with desk.reading() as books:
        waiting = books.exports_waiting(now_ms=desk.now_ms(), limit=1)
    row = _claimed(desk, waiting[0]) if waiting else None
    if row is None:
        return 0
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "export.zip"
        archive = Archive(
            desk, recordings, row.account, desk.notices.public_url.rstrip("/"), desk.settings.export_max_bytes
        )
        try:
            length = archive.write(path)
        except NotFound:
            return 0  # the account has ended
        except OSError as error:
            raise WorldError(
                f"it can't be written: {error.strerror or error}",
                subject=str(path),
                code="export_not_written",
            ) from error
        except TooLarge as error:
            return _settled(desk, replace(row, state=ExportState.FAILED, error=error.code, claimed_ms=0))
        done = replace(row, state=ExportState.READY, length=length, claimed_ms=0)
        done = replace(done, parts=-(-frames(done) // FRAMES))
        _put(desk, store, done, path)
    return _settled(desk, done)


def tidy(desk: Desk, store: ObjectStore) -> int:
    """Forget those that are over, and delete what the store has of them, and of such as were never finished or whose
    account has ended. Returns how many objects."""
    desk.write(lambda books: books.drop_exports(before_ms=desk.now_ms()))
    doomed = []
    known: set[str] | None = None
    for info in store.list(f"{FOLDER}/"):
        if known is None:  # after the listing has begun: what was put before is known by its row
            known = _known(desk)
        if info.key.rpartition("/")[0] not in known:
            doomed.append(info.key)
    # One that was begun since has its row by now.
    known = _known(desk) if doomed else set()
    gone = [key for key in doomed if key.rpartition("/")[0] not in known]
    for at in range(0, len(gone), DELETE_BATCH_KEYS):
        store.delete_many(gone[at : at + DELETE_BATCH_KEYS])
    return len(gone)


# --- parts --------------------------------------------------------------------------------------------------------


def _claimed(desk: Desk, seen: ExportRow) -> ExportRow | None:
    """The row with a new key, and nobody else's for a while; None when another process was faster."""

    def work(books: Books) -> ExportRow | None:
        found = [row for row in books.exports(account=seen.account) if row.export_id == seen.export_id]
        if not found or found[0].state is not ExportState.QUEUED or found[0].claimed_ms > desk.now_ms():
            return None
        row = replace(found[0], claimed_ms=desk.now_ms() + CLAIM_MS, secret=desk.random_bytes(32).hex())
        books.put_export(row)
        return row

    return desk.write(work)


def _put(desk: Desk, store: ObjectStore, row: ExportRow, path: Path) -> None:
    cipher = AESGCM(bytes.fromhex(row.secret))
    with path.open("rb") as file:
        for part in range(row.parts):
            body = bytearray()
            for number in range(part * FRAMES, min((part + 1) * FRAMES, frames(row))):
                nonce = desk.random_bytes(_NONCE)
                body += nonce + cipher.encrypt(nonce, file.read(FRAME_BYTES), _place(row, number))
            store.put(_key(row, part), body, zlib.crc32(body))


def _settled(desk: Desk, done: ExportRow) -> int:
    """Note what became of it, and tell the owner; unless it was claimed again, or the account has ended."""

    def work(books: Books) -> int:
        found = [row for row in books.exports(account=done.account) if row.export_id == done.export_id]
        if not found or found[0].secret != done.secret or found[0].state is not ExportState.QUEUED:
            return 0
        now_ms = desk.now_ms()
        row = replace(done, ready_ms=now_ms, expires_ms=now_ms + KEPT_DAYS * MS_PER_DAY)
        books.put_export(row)
        account = books.account(row.account)
        if row.state is ExportState.READY:
            until = _instant(row.expires_ms)
            tell(desk, books, account, "export_ready", account=row.account, until=until)
        else:
            tell(desk, books, account, "export_failed", account=row.account, reason=row.error)
        return 1

    return desk.write(work)


def _instant(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _known(desk: Desk) -> set[str]:
    """Folders of the store that have a row."""
    return {_folder(row) for row in _rows(desk) if row.secret}


def _rows(desk: Desk) -> Iterator[ExportRow]:
    after = 0
    while True:
        with desk.reading() as books:
            page = books.exports(after=after, limit=1000)
        yield from page
        if len(page) < 1000:
            return
        after = page[-1].export_id


def _folder(row: ExportRow) -> str:
    """Where its objects are: another place for each key, so that none is written twice."""
    return f"{FOLDER}/{row.export_id}-{sha256(bytes.fromhex(row.secret)).hexdigest()[:16]}"


def _key(row: ExportRow, part: int) -> str:
    return f"{_folder(row)}/{part}"


def _place(row: ExportRow, frame: int) -> bytes:
    return f"export {row.export_id} {row.length} {frame}".encode()
