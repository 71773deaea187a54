"""E-mail and mobile addresses: one form for each, and nobody else's (agreement 6.5.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention.addresses import (
    MAX_EMAIL_BYTES,
    address_hash,
    normalise,
    normalise_email,
    normalise_mobile,
)
from storage.errors import CallerError

SECRET = bytes(range(32))


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("ada@example.org", "ada@example.org"),
        (" Ada.Lovelace+cams@EXAMPLE.Org ", "ada.lovelace+cams@example.org"),
        ("ada@example.org.", "ada@example.org"),
        ("ada@münchen.example", "ada@xn--mnchen-3ya.example"),
        ("ada@mu\u0308nchen.example", "ada@xn--mnchen-3ya.example"),
        ("ada@xn--mnchen-3ya.example", "ada@xn--mnchen-3ya.example"),
        ("ada@XN--MNCHEN-3YA.example", "ada@xn--mnchen-3ya.example"),
        ("ju\u0308rgen@example.org", "jürgen@example.org"),
        ("JÜRGEN@example.org", "jürgen@example.org"),
        ("a@b.co", "a@b.co"),
        ("用户@example.org", "用户@example.org"),
    ],
)
def test_an_email_address_has_one_form(typed: str, stored: str) -> None:
    assert normalise_email(typed) == stored
    assert normalise_email(stored) == stored


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "@",
        "ada",
        "ada@",
        "@example.org",
        "ada@localhost",
        "ada@127.0.0.1",
        "ada@[127.0.0.1]",
        "ada@example..org",
        "ada@.example.org",
        "ada@-example.org",
        "ada@exam_ple.org",
        "ada@exa mple.org",
        "ada@xn--\u00fc.org",
        "ada@xn--a-.org",
        "a b@example.org",
        '"a b"@example.org',
        "a@b@example.org",
        ".ada@example.org",
        "ada.@example.org",
        "a..da@example.org",
        "ada\n@example.org",
        "ada@example.org\r\nBcc: eve@example.org",
        "ada\u0000@example.org",
        "ada\u200b@example.org",  # no width, and invisible
        "ada\u202e@example.org",  # turns the writing round
        "ada\ud800@example.org",
        "Ada <ada@example.org>",
        "ada,eve@example.org",
        "ada@fa\u00df.example",  # would be delivered to fass.example
        "ada@example\u3002org",
        "ada@\uff45xample.org",
        "a" * 65 + "@example.org",
        "ada@" + "a" * 64 + ".org",
        "ada@" + ".".join(["a" * 60] * 5) + ".org",
        "ü" * 33 + "@example.org",  # 66 bytes
        "a@" * 100_000,
    ],
)
def test_what_is_no_email_address_is_refused(typed: str) -> None:
    with pytest.raises(CallerError) as caught:
        normalise_email(typed)
    assert caught.value.code == "bad_email"


def test_lengths_at_their_bounds() -> None:
    domain = ".".join(["d" * 60] * 3) + ".exexexexex"
    local = "a" * (MAX_EMAIL_BYTES - 1 - len(domain))
    longest = f"{local}@{domain}"
    assert normalise_email(longest) == longest
    assert normalise_email("a" * 64 + "@example.org")
    with pytest.raises(CallerError):
        normalise_email("a" + longest)


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("+491712345678", "+491712345678"),
        (" +49 (171) 234-56.78 ", "+491712345678"),
        ("+1 650/253 0000", "+16502530000"),
        ("+123456789012345", "+123456789012345"),
        ("+1234567", "+1234567"),
    ],
)
def test_a_mobile_number_has_one_form(typed: str, stored: str) -> None:
    assert normalise_mobile(typed) == stored
    assert normalise_mobile(stored) == stored


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "+",
        "0171 2345678",
        "0049 171 2345678",
        "+0171 2345678",
        "+123456",
        "+1234567890123456",
        "+49 171 CALLME1",
        "++491712345678",
        "+49171\n2345678",
        "+49171\u00a02345678",
        "+\u0664\u0669\u0661\u0667\u0661\u0662\u0663\u0664\u0665",  # digits, but not those of E.164
        "+49 171 2345678 ext. 5",
        "+" + "1" * 100_000,
    ],
)
def test_what_is_no_mobile_number_is_refused(typed: str) -> None:
    with pytest.raises(CallerError) as caught:
        normalise_mobile(typed)
    assert caught.value.code == "bad_mobile"


@given(
    st.one_of(st.text(max_size=40), st.from_regex(r"[^@]{1,20}@[^@]{1,20}\.[a-zA-Z]{2,5}", fullmatch=True))
)
def test_whatever_is_typed_is_refused_or_has_a_form_that_stays(typed: str) -> None:
    for kind in ("email", "mobile"):
        try:
            stored = normalise(kind, typed)
        except CallerError:
            continue
        assert normalise(kind, stored) == stored
        assert stored.isprintable()
        assert normalise(kind, f" {stored} ") == stored
        assert not set(stored) & set(' \t\r\n<>,;:"()[]\\')


def test_another_kind_of_address_is_refused() -> None:
    with pytest.raises(CallerError) as caught:
        normalise("fax", "1")
    assert caught.value.code == "bad_address_kind"


def test_the_hash_tells_nothing_without_the_secret() -> None:
    """6.5.2: what is kept is not the address."""
    hashed = address_hash(SECRET, "email", "ada@example.org")
    assert len(hashed) == 32
    assert hashed == address_hash(SECRET, "email", "ada@example.org")
    others = {
        address_hash(SECRET[::-1], "email", "ada@example.org"),
        address_hash(SECRET, "mobile", "ada@example.org"),
        address_hash(SECRET, "email", "eve@example.org"),
        address_hash(SECRET, "emaila", "da@example.org"),
    }
    assert len(others | {hashed}) == 5
    for secret in (b"", b"short", bytes(65)):
        with pytest.raises(ValueError, match=r"secret|key"):
            address_hash(secret, "email", "ada@example.org")
