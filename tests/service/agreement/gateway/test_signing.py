"""Signatures, keys and their change."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

import pytest

from service.agreement.gateway.signing import (
    Keys,
    header_signatures,
    is_signed,
    signed_headers,
    timestamp_s,
)
from storage.errors import CallerError, WorldError

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32


def test_what_is_signed_is_written_down() -> None:
    headers = signed_headers([OLD], "request", "1767225600", "POST /charges", b"{}")
    wanted = hmac.new(OLD, b"v1\nrequest\n1767225600\nPOST /charges\n{}", hashlib.sha256).hexdigest()
    assert headers == {"Clipkeep-Timestamp": "1767225600", "Clipkeep-Signature": f"v1={wanted}"}


def test_each_part_is_signed() -> None:
    made = signed_headers([OLD], "answer", "5", "POST /charges", b"{}")["Clipkeep-Signature"]
    assert is_signed([OLD], "answer", "5", "POST /charges", b"{}", made)
    assert not is_signed([OTHER], "answer", "5", "POST /charges", b"{}", made)
    assert not is_signed([OLD], "report", "5", "POST /charges", b"{}", made)
    assert not is_signed([OLD], "answer", "6", "POST /charges", b"{}", made)
    assert not is_signed([OLD], "answer", "5", "POST /refunds", b"{}", made)
    assert not is_signed([OLD], "answer", "5", "POST /charges", b"{} ", made)


@pytest.mark.parametrize(
    "header", ["", "v1=", "v1=" + "g" * 64, "v1=" + "A" * 64, "v2=" + "a" * 64, "a" * 64]
)
def test_what_is_no_signature_is_none(header: str) -> None:
    assert header_signatures(header) == []
    assert not is_signed([OLD], "report", "5", "report", b"", header)


def test_a_header_of_thousands_of_signatures_is_read_to_the_fourth() -> None:
    assert len(header_signatures(", ".join(["v1=" + "a" * 64] * 5000))) == 4


def test_a_key_is_changed_without_a_moment_in_which_neither_is_understood() -> None:
    """Each side signs with both of its keys, and takes either; no two neighbouring steps are apart."""
    steps = [([OLD], [OLD]), ([NEW, OLD], [OLD]), ([NEW, OLD], [NEW]), ([NEW], [NEW])]
    for ours, theirs in steps:
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            made = signed_headers(sender, "report", "5", "report", b"x")["Clipkeep-Signature"]
            assert is_signed(receiver, "report", "5", "report", b"x", made)


def test_a_key_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("o" * 32 + "\n")
    path.chmod(0o600)
    keys = Keys(file=path)
    assert keys.now() == (OLD,)
    path.write_text("n" * 32 + "\n" + "o" * 32 + "\n")
    assert keys.now() == (NEW, OLD)
    path.unlink()
    with pytest.raises(WorldError) as caught:
        keys.now()
    assert caught.value.code == "no_payment_key"


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_key_that_others_may_read_is_none(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("o" * 32)
    path.chmod(0o640)
    with pytest.raises(CallerError) as caught:
        Keys(file=path)
    assert caught.value.code == "key_open"


@pytest.mark.parametrize("text", ["", "short", "o" * 31, "é" * 32, " ".join(["o" * 32] * 3)])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(CallerError) as caught:
        Keys(text)
    assert caught.value.code == "bad_config"
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("1767225600", 1767225600),
        ("", None),
        ("01", None),
        ("1.5", None),
        ("-1", None),
        ("1" * 13, None),
        ("１", None),
    ],
)
def test_a_timestamp_is_seconds_in_digits(header: str, wanted: int | None) -> None:
    assert timestamp_s(header) == wanted
