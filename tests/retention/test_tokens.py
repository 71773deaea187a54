"""Tokens: one spelling, one kind, one device, one generation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention.tokens import (
    ShareClaims,
    ViewerClaims,
    check_device_token,
    mint_device_token,
    mint_share_token,
    mint_viewer_token,
    read_share_token,
    read_viewer_token,
)
from storage.errors import CallerError

SECRET = bytes(range(32))
OTHER = bytes(range(1, 33))
U32 = st.integers(0, 2**32 - 1)
U48 = st.integers(0, 2**48 - 1)
U16 = st.integers(0, 2**16 - 1)
URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def refused(token: str, secret: bytes = SECRET) -> bool:
    with pytest.raises(CallerError) as caught:
        read_viewer_token(secret, token)
    return caught.value.code == "bad_token"


@given(U32, U32, U32, U32)
def test_a_device_token_is_of_one_device_and_generation(device: int, generation: int, d: int, g: int) -> None:
    token = mint_device_token(SECRET, device, generation)
    assert token == mint_device_token(SECRET, device, generation)
    assert token.startswith("ckd_")
    assert len(token) == 26
    assert check_device_token(SECRET, device, generation, token)
    assert check_device_token(SECRET, d, g, token) == ((d, g) == (device, generation))
    assert not check_device_token(OTHER, device, generation, token)


@given(U32, U32, U48, U16)
def test_a_viewer_token_says_what_was_minted(
    device: int, generation: int, expires_s: int, viewers: int
) -> None:
    token = mint_viewer_token(SECRET, device, generation, expires_s, viewers)
    assert token.startswith("ckv_")
    assert len(token) == 47
    assert read_viewer_token(SECRET, token) == ViewerClaims(device, generation, expires_s, viewers)
    assert refused(token, OTHER)


def test_a_viewer_token_of_an_earlier_release_has_viewer_generation_0() -> None:
    """Minted before there was one, with SECRET, for device 7, generation 3, until 2,000,000,000."""
    token = "ckv_BwAAAAMAAAAAlDV3AAAAAJtpF2ESqdgBruzEE4L3znE"
    assert read_viewer_token(SECRET, token) == ViewerClaims(7, 3, 2_000_000_000, 0)


@pytest.mark.parametrize("claims", [(7, 1, 1 << 48, 0), (7, 1, -1, 0), (7, 1, 5, 1 << 16), (7, 1, 5, -1)])
def test_claims_that_would_run_into_each_other_are_refused(claims: tuple[int, int, int, int]) -> None:
    with pytest.raises(CallerError) as caught:
        mint_viewer_token(SECRET, *claims)
    assert caught.value.code == "bad_token_claims"


def test_any_other_character_anywhere_is_refused() -> None:
    """Also in the last place, where base64 has bits to spare."""
    device_token, viewer_token = (
        mint_device_token(SECRET, 7, 1),
        mint_viewer_token(SECRET, 7, 1, 2_000_000_000),
    )
    for place in range(len(viewer_token)):
        for char in URL_SAFE + "=+/ é":
            if char != viewer_token[place]:
                assert refused(viewer_token[:place] + char + viewer_token[place + 1 :])
    for place in range(len(device_token)):
        for char in URL_SAFE + "=+/ é":
            if char != device_token[place]:
                other = device_token[:place] + char + device_token[place + 1 :]
                assert not check_device_token(SECRET, 7, 1, other)


@given(st.text() | st.text(URL_SAFE, min_size=43, max_size=43).map("ckv_".__add__))
def test_noise_is_refused(noise: str) -> None:
    assert not check_device_token(SECRET, 7, 1, noise)
    assert refused(noise)


def test_cut_and_padded_tokens_are_refused() -> None:
    device_token, viewer_token = mint_device_token(SECRET, 7, 1), mint_viewer_token(SECRET, 7, 1, 5)
    for added in ("\n", "=", " ", "\0", "\ud800", "A"):
        assert not check_device_token(SECRET, 7, 1, device_token + added)
        assert not check_device_token(SECRET, 7, 1, added + device_token)
        assert refused(viewer_token + added)
        assert refused(added + viewer_token)
    for size in range(len(device_token)):
        assert not check_device_token(SECRET, 7, 1, device_token[:size])
    for size in range(len(viewer_token)):
        assert refused(viewer_token[:size])


def test_a_refusal_does_not_repeat_the_token() -> None:
    token = mint_viewer_token(SECRET, 7, 1, 5)
    with pytest.raises(CallerError) as caught:
        read_viewer_token(OTHER, token)
    assert token[4:] not in str(caught.value)


def test_one_kind_never_passes_as_the_other() -> None:
    device_token, viewer_token = mint_device_token(SECRET, 7, 1), mint_viewer_token(SECRET, 7, 1, 5)
    assert refused(device_token)
    assert refused("ckv_" + device_token[4:])
    assert not check_device_token(SECRET, 7, 1, viewer_token)
    assert not check_device_token(SECRET, 7, 1, "ckd_" + viewer_token[4:])
    # The MAC itself, cut out of one kind, does not serve in the other.
    assert not check_device_token(SECRET, 7, 1, "ckd_" + viewer_token[-22:])


@pytest.mark.parametrize("device", [-1, 2**32, 2**70])
def test_numbers_out_of_bounds(device: int) -> None:
    assert not check_device_token(SECRET, device, 1, mint_device_token(SECRET, 1, 1))
    assert not check_device_token(SECRET, 1, device, mint_device_token(SECRET, 1, 1))
    with pytest.raises(CallerError) as caught:
        mint_device_token(SECRET, device, 1)
    assert caught.value.code == "bad_token_claims"
    with pytest.raises(CallerError) as caught:
        mint_viewer_token(SECRET, 1, device, 1)
    assert caught.value.code == "bad_token_claims"


@pytest.mark.parametrize("secret", [b"", bytes(15), bytes(65)])
def test_a_secret_that_is_none_is_refused(secret: bytes) -> None:
    with pytest.raises(CallerError) as caught:
        mint_device_token(secret, 1, 1)
    assert caught.value.code == "bad_secret"
    with pytest.raises(CallerError) as caught:
        check_device_token(secret, 1, 1, mint_device_token(SECRET, 1, 1))
    assert caught.value.code == "bad_secret"


# --- share links --------------------------------------------------------------------------------------------------

SHARE = ShareClaims(7, 3, 1_800_000_000, 5, 9, 1_700_000_000_000, 1_700_000_060_000)


@given(
    st.builds(
        ShareClaims,
        device=st.integers(0, 2**32 - 1),
        generation=st.integers(0, 2**32 - 1),
        expires_s=st.integers(0, 2**48 - 1),
        viewer_generation=st.integers(0, 2**16 - 1),
        share=st.integers(0, 2**32 - 1),
        from_ms=st.integers(0, 2**48 - 1),
        to_ms=st.integers(0, 2**48 - 1),
    )
)
def test_a_share_token_says_what_was_put_into_it(claims: ShareClaims) -> None:
    token = mint_share_token(SECRET, claims)
    assert len(token) == 68
    assert read_share_token(SECRET, token) == claims


@pytest.mark.parametrize(
    "other",
    [
        {"device": 2**32},
        {"generation": -1},
        {"expires_s": 2**48},
        {"viewer_generation": 2**16},
        {"share": 2**32},
        {"from_ms": -1},
        {"to_ms": 2**48},
    ],
)
def test_claims_of_a_share_out_of_bounds(other: dict[str, int]) -> None:
    with pytest.raises(CallerError) as caught:
        mint_share_token(SECRET, replace(SHARE, **other))
    assert caught.value.code == "bad_token_claims"


@given(place=st.integers(0, 67), letter=st.sampled_from("ABab01-_ckdsv=+/ \n"))
def test_a_share_token_with_another_letter_is_none(place: int, letter: str) -> None:
    token = mint_share_token(SECRET, SHARE)
    other = token[:place] + letter + token[place + 1 :]
    if other == token:
        return
    with pytest.raises(CallerError) as caught:
        read_share_token(SECRET, other)
    assert caught.value.code == "bad_token"


def test_no_kind_passes_as_another() -> None:
    share = mint_share_token(SECRET, SHARE)
    viewer = mint_viewer_token(SECRET, 7, 3, 1_800_000_000, 5)
    for read, token in (
        (read_viewer_token, share),
        (read_viewer_token, "ckv_" + share[4:]),
        (read_share_token, viewer),
        (read_share_token, "cks_" + viewer[4:]),
    ):
        with pytest.raises(CallerError):
            read(SECRET, token)
