"""The gateway that records: one act per reference, whoever asks, however often, whatever dies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from retention.money import Money
from service.agreement.gateway import recording
from service.agreement.gateway.recording import RecordFiles, RecordingGateway, RecordRows
from service.agreement.payments import (
    MAX_METHOD_CHARS,
    MAX_REFERENCE_CHARS,
    PaymentDeclined,
    checked_method,
    checked_reference,
)
from storage.keys import KeyStore
from tests.servers.catalogs import make_catalog
from tests.service.agreement.refusing import refused

FEE = Money(5999, "USD")


@pytest.fixture
def gateway(tmp_path: Path) -> RecordingGateway:
    return RecordingGateway(RecordFiles(tmp_path / "payments"))


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[RecordRows]]:
    """Records of two hosts over one catalog, each with a folder of its own."""
    with KeyStore.create(tmp_path / "keys") as vault, closing(make_catalog(tmp_path, vault)) as catalog:
        yield [RecordRows(catalog, RecordFiles(tmp_path / name / "payments")) for name in "ab"]


def test_what_one_host_charged_another_refunds(hosts: list[RecordRows], tmp_path: Path) -> None:
    a, b = map(RecordingGateway, hosts)
    first = a.charge("a", FEE, "card", "why")
    assert b.charge("a", FEE, "card", "why") == first
    assert b.look_up("a", "charge", FEE) == first
    refund = b.refund("a.r1", "a", FEE)
    assert list(a.receipts()) == [first, refund]
    assert a.void("b", FEE) is None
    with pytest.raises(PaymentDeclined):
        b.charge("b", FEE, "card", "why")
    with refused(402, "reference_taken"):
        b.charge("a", Money(1, "USD"), "card", "why")
    assert list(tmp_path.glob("*/payments")) == []


def test_what_a_host_has_in_files_counts_until_another_joins(hosts: list[RecordRows], tmp_path: Path) -> None:
    before = RecordingGateway(RecordFiles(tmp_path / "a" / "payments"))
    (tmp_path / "a").mkdir()
    charged = [before.charge(name, FEE, "card", "why") for name in ("a", "b")]
    a, b = map(RecordingGateway, hosts)
    assert a.charge("a", FEE, "declined", "why") == charged[0], "it was charged, and is not asked anew"
    assert b.look_up("b", "charge", FEE) is None, "it is in the other host's folder"
    hosts[0].take_in()
    hosts[0].take_in()
    assert list(b.receipts()) == list(a.receipts()) == charged


def test_a_charge_is_recorded_once(gateway: RecordingGateway, tmp_path: Path) -> None:
    first = gateway.charge("a", FEE, "card", "annual plan")
    assert gateway.charge("a", FEE, "another card", "told otherwise") == first
    assert list(gateway.receipts()) == [first]
    [path] = (tmp_path / "payments").iterdir()
    document = json.loads(path.read_text())
    assert (document["minor"], document["currency"], document["kind"]) == (5999, "USD", "charge")
    assert "card" not in path.read_text(), "what is charged is not kept: the record leads to nobody"


def test_a_decline_is_for_ever(gateway: RecordingGateway) -> None:
    for method in ("declined-card", "good-card"):
        with pytest.raises(PaymentDeclined):
            gateway.charge("a", FEE, method, "why")
    assert list(gateway.receipts()) == []


def test_a_reference_is_one_payment(gateway: RecordingGateway) -> None:
    gateway.charge("a", FEE, "card", "why")
    for money in (Money(1, "USD"), Money(5999, "EUR")):
        with refused(402, "reference_taken"):
            gateway.charge("a", money, "card", "why")
    with refused(402, "reference_taken"):
        gateway.refund("a", "a", FEE)


def test_a_refund_is_of_a_charge_and_no_more_than_it(gateway: RecordingGateway) -> None:
    gateway.charge("a", FEE, "card", "why")
    receipt = gateway.refund("a.r1", "a", Money(100, "USD"))
    assert gateway.refund("a.r1", "a", Money(100, "USD")) == receipt
    assert receipt.of_reference == "a"
    for reference, of, money in (
        ("r2", "nothing", FEE),
        ("r3", "a", Money(6000, "USD")),
        ("r4", "a", Money(1, "EUR")),
        ("r5", "a.r1", Money(1, "USD")),
    ):
        with refused(402, "payment_declined"):
            gateway.refund(reference, of, money)


def test_of_many_at_once_one_records(gateway: RecordingGateway, tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        receipts = list(threads.map(lambda n: gateway.charge("a", FEE, f"card{n}", f"{n}"), range(64)))
    assert len(set(receipts)) == 1
    assert [path.name for path in (tmp_path / "payments").iterdir()] == ["a.json"]


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_full_disk_can_be_tried_again(gateway: RecordingGateway, call: str) -> None:
    with (
        mock.patch.object(recording.os, call, side_effect=OSError(28, "No space left")),
        refused(503, "payment_unavailable"),
    ):
        gateway.charge("a", FEE, "card", "why")
    assert list(gateway.receipts()) == []
    assert gateway.charge("a", FEE, "card", "why").money == FEE


def test_a_record_is_durable_before_it_is_told(gateway: RecordingGateway) -> None:
    """Also for who comes second, while the first has linked it and not yet synced the folder."""
    gateway.charge("a", FEE, "card", "why")
    with mock.patch.object(recording.os, "fsync", wraps=os.fsync) as fsync:
        gateway.charge("a", FEE, "card", "why")
    assert fsync.call_count == 2


def test_a_broken_record_is_not_overwritten(gateway: RecordingGateway, tmp_path: Path) -> None:
    path = tmp_path / "payments" / "a.json"
    path.parent.mkdir()
    for text in ("", "{", "[]", '{"reference": "a"}', "\udcff"):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with refused(503, "payment_unavailable"):
            gateway.charge("a", FEE, "card", "why")
        assert path.read_bytes() == text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "reference", ["", ".", "..", "a/b", "../a", "-a", "a b", "ä", "a\n", "a\0", "a" * 121]
)
def test_references_are_file_names(gateway: RecordingGateway, reference: str) -> None:
    with refused(422, "bad_reference"):
        gateway.charge(reference, FEE, "card", "why")


def test_the_bounds_of_references_and_methods() -> None:
    assert checked_reference("a" * MAX_REFERENCE_CHARS)
    assert checked_method("m" * MAX_METHOD_CHARS)
    for method in ("", "m" * (MAX_METHOD_CHARS + 1), "a card", "käse", "a\n"):
        with refused(422, "bad_method"):
            checked_method(method)
