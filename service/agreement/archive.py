"""All that is kept about an account, as a zip: each kind of thing as JSON and as CSV, recordings by a list with links.

What is read is read a page at a time, and written at once: memory is bounded by a page, and the file by `max_bytes`.
Secrets are left out: hashes of passwords, codes and tokens, and the gateway's names of means of payment.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from service.agreement.desk import Desk
from service.agreement.notices import without_code
from service.agreement.texts import cell
from storage.catalog.books import Books
from storage.catalog.reading import ReadingCatalog
from storage.days import MS_PER_DAY, to_date
from storage.errors import Unprocessable
from storage.rows.recordings import MAX_CAPTURE_MS, ChunkRow
from storage.rows.sightings import Sighting

PAGE = 500
ROWS = 4096
"""Of chunks, in one read of the catalog: some 10 ms."""
GAP_MS = 1000
"""Between two chunks, from which recordings are not contiguous."""
README = """\
This is all that is kept about your account at the time when it was put together.

Each .json file has the same as the .csv file of its name. Times are Unix milliseconds (…_ms), days (…_on) are UTC. In
recordings, each line is a contiguous part of a day of a device, with the address of it as a film (clip) and as a
playlist: they need your log-in, and the time of storage goes on as before. Left out is what is secret: hashes of your
password, of codes and of log-ins.
"""

_BOUGHT = (
    *("currency", "fee_minor", "monthly_fee_minor", "renews", "agreement_version", "bought_ms"),
    *("next_fee_minor", "next_fee_on"),
)
"""Of what was bought, beside its plan."""
_SECRET = frozenset(("password_hash", "token_hash", "code_hash", "secret", "method", "url"))

Row = dict[str, Any]


class TooLarge(Unprocessable):
    """More than a file may have."""

    code = "export_too_large"


@dataclass(frozen=True, slots=True)
class Archive:
    """What one account's file is made of.

    Args:
        recordings: where its recordings are listed.
        url: begins the links; "" for links without a host.
    """

    desk: Desk
    recordings: ReadingCatalog
    account: int
    url: str
    max_bytes: int

    def write(self, path: Path) -> int:
        """Make the file. Returns its length.

        Raises:
            NotFound: the account has ended; TooLarge; WorldError of the catalog; OSError.
        """
        with open(path, "xb") as file, ZipFile(file, "w", ZIP_DEFLATED) as zipped:
            zipped.writestr("README.txt", README)
            for name, rows in self._kinds().items():
                with zipped.open(f"{name}.json", "w") as out:
                    self._json(io.TextIOWrapper(out, "utf-8", write_through=True), rows(), file)
                with zipped.open(f"{name}.csv", "w") as out:
                    text = io.TextIOWrapper(out, "utf-8", newline="", write_through=True)
                    self._csv(text, rows(), file)
        return path.stat().st_size

    def _kinds(self) -> dict[str, Callable[[], Iterator[Row]]]:
        """Rows by the name of their file."""
        return {
            "account": self._account,
            "agreement": self._all(lambda books: books.acceptances_of(self.account)),
            "log_ins": self._all(lambda books: books.sessions_of(self.account)),
            "identities": self._all(lambda books: books.identities_of(self.account)),
            "codes": self._all(lambda books: books.codes(self.account)),
            "consents": self._all(lambda books: books.consents_of(self.account)),
            "devices": self._devices,
            "refusals": self._refusals,
            "plans": self._plans,
            "payments": self._paged(
                lambda books, after: books.payments_of(self.account, after=after, limit=PAGE), "payment_id"
            ),
            "methods": self._all(lambda books: books.methods_of(self.account, limit=1000)),
            "notices": self._paged(
                lambda books, after: [
                    without_code(row) for row in books.notices(account=self.account, after=after, limit=PAGE)
                ],
                "notice_id",
            ),
            "history": self._paged(
                lambda books, after: books.events_of(self.account, after=after, limit=PAGE), "event_id"
            ),
            "corrections": self._paged(
                lambda books, after: books.corrections(account=self.account, after=after, limit=PAGE),
                "correction_id",
            ),
            "blocks": self._all(lambda books: books.blocks_of(self.account)),
            "downloads": self._all(lambda books: books.exports(account=self.account, limit=1000)),
            "share_links": self._shares,
            "kept_clips": self._clips,
            "recordings": self._recordings,
        }

    # --- rows -------------------------------------------------------------------------------------------------

    def _account(self) -> Iterator[Row]:
        with self.desk.reading() as books:
            yield plain(books.account(self.account))

    def _all(self, read: Callable[[Books], list[Any]]) -> Callable[[], Iterator[Row]]:
        def rows() -> Iterator[Row]:
            with self.desk.reading() as books:
                found = read(books)
            yield from map(plain, found)

        return rows

    def _paged(self, read: Callable[[Books, int], list[Any]], number: str) -> Callable[[], Iterator[Row]]:
        def rows() -> Iterator[Row]:
            after = 0
            while True:
                with self.desk.reading() as books:
                    page = read(books, after)
                yield from map(plain, page)
                if len(page) < PAGE:
                    return
                after = getattr(page[-1], number)

        return rows

    def _device_pages(self) -> Iterator[tuple[Any, str | None, list[Any]]]:
        """(facts, serial, subscriptions) of each device."""
        after = 0
        while True:
            with self.desk.reading() as books:
                found = books.devices_of(self.account, after=after, limit=PAGE)
                more = [
                    (facts, books.serial_of(facts.device), books.subscriptions_of_device(facts.device))
                    for facts in found
                ]
            yield from more
            if len(found) < PAGE:
                return
            after = found[-1].device

    def _devices(self) -> Iterator[Row]:
        for facts, serial, _ in self._device_pages():
            with self.desk.reading() as books:
                name = books.device_names([facts.device]).get(facts.device)
            yield {
                "device": facts.device,
                "name": None if name is None else name.name,
                "label": None if name is None else name.label,
                "serial": serial,
                "suspended": facts.suspended,
                "terminated_ms": facts.terminated_ms,
                "seen_ms": self._seen(facts.device).seen_ms,
            }

    def _refusals(self) -> Iterator[Row]:
        """Of uploads that came with a device's token: how often, and when last."""
        for facts, _, _ in self._device_pages():
            for one in self._seen(facts.device).refused:
                yield {"device": facts.device, **plain(one)}

    def _seen(self, device: int) -> Sighting:
        return self.desk.catalog.sightings([device])[device]

    def _plans(self) -> Iterator[Row]:
        for facts, _, subscriptions in self._device_pages():
            bought = {row.plan_id: row for row in subscriptions}
            for plan in facts.plans:
                row = bought.get(plan.plan_id)
                paid = dict.fromkeys(_BOUGHT) if row is None else plain(row)
                yield {"device": facts.device, **plain(plan), **{name: paid[name] for name in _BOUGHT}}

    def _clips(self) -> Iterator[Row]:
        for facts, _, _ in self._device_pages():
            with self.desk.reading() as books:
                found = books.clips_of(facts.device, limit=1000)
            yield from map(plain, found)

    def _shares(self) -> Iterator[Row]:
        for facts, _, _ in self._device_pages():
            with self.desk.reading() as books:
                found = books.shares_of(facts.device, limit=1000)
            yield from map(plain, found)

    def _recordings(self) -> Iterator[Row]:
        for facts, _, _ in self._device_pages():
            yield from self._spans(facts.device)

    def _spans(self, device: int) -> Iterator[Row]:
        """Contiguous parts of days: what can be asked for as one film."""
        from_ms = 0
        span: Row | None = None
        while True:
            rows = self.recordings.chunks(device, from_ms, MAX_CAPTURE_MS, limit=ROWS)
            for row in rows:
                if span is None or not _goes_on(span, row):
                    if span is not None:
                        yield self._linked(span)
                    span = _begun(row)
                span["to_ms"] = max(span["to_ms"], row.capture_ms + max(row.duration_ms, 1))
                span["chunks"] += 1
                span["length_bytes"] += row.length
            if len(rows) < ROWS:
                break
            from_ms = rows[-1].capture_ms + 1
        if span is not None:
            yield self._linked(span)

    def _linked(self, span: Row) -> Row:
        asked = f"?from={span['from_ms']}&to={span['to_ms']}"
        device = f"{self.url}/v1/devices/{span['device']}"
        return {**span, "clip": f"{device}/clip.ts{asked}", "playlist": f"{device}/playlist.m3u8{asked}"}

    # --- files ------------------------------------------------------------------------------------------------

    def _json(self, out: io.TextIOWrapper, rows: Iterator[Row], file: io.BufferedWriter) -> None:
        out.write("[")
        for number, row in enumerate(rows):
            out.write((",\n" if number else "\n") + json.dumps(row, ensure_ascii=False))
            self._bound(file)
        out.write("\n]\n")

    def _csv(self, out: io.TextIOWrapper, rows: Iterator[Row], file: io.BufferedWriter) -> None:
        writer = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(out, row.keys())
                writer.writeheader()
            writer.writerow({name: _cell(value) for name, value in row.items()})
            self._bound(file)

    def _bound(self, file: io.BufferedWriter) -> None:
        if file.tell() > self.max_bytes:
            raise TooLarge(f"it has more than {self.max_bytes} bytes; ask the operator")


def _begun(row: ChunkRow) -> Row:
    return {
        "device": row.device,
        "from_ms": row.capture_ms,
        "to_ms": row.capture_ms,
        "chunks": 0,
        "length_bytes": 0,
        "expires_on": to_date(row.expires_on).isoformat(),
    }


def _goes_on(span: Row, row: ChunkRow) -> bool:
    """Whether the chunk follows without a gap, on the same day."""
    same_day = row.capture_ms // MS_PER_DAY == int(span["from_ms"]) // MS_PER_DAY
    return same_day and row.capture_ms < int(span["to_ms"]) + GAP_MS


def plain(row: Any) -> Row:
    """A record as JSON has it, without what is secret."""
    left_out = set(_SECRET)
    if hasattr(row, "gateway_id"):  # a payment: what the desk needs to finish it names a means of payment
        left_out |= {"detail", "gateway_id"}
    return {
        field.name: _value(field.name, getattr(row, field.name))
        for field in fields(row)
        if field.name not in left_out
    }


def _value(name: str, value: Any) -> Any:
    if name.endswith("_on") and isinstance(value, int):  # a day number; 0: never
        return to_date(value).isoformat() if value else None
    return value.value if isinstance(value, Enum) else value


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return cell(value) if isinstance(value, str) else value
