"""What of a URL people may see."""

from __future__ import annotations

import pytest

from storage.urls import masked_url, without_user


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hook.example", "https://hook.example"),
        ("https://hook.example/", "https://hook.example/"),
        ("https://hook.example:8443/T0/B0/xyz", "https://hook.example:8443/***"),
        ("https://hook.example?token=xyz", "https://hook.example/***"),
        ("https://ada:xyz@[::1]:1/xyz", "https://***@[::1]:1/***"),
        ("https://xyz@h", "https://***@h"),
        ("https://h:xyz/", "***"),
        ("https://[xyz", "***"),
        ("xyz", "***"),
        ("", "***"),
    ],
)
def test_a_hooks_address(url: str, shown: str) -> None:
    assert masked_url(url) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("s3://k:xyz@bucket/p", "s3://***@bucket/p"),
        ("s3://k:x@yz@bucket", "s3://***@bucket"),
        ("smtp://mail:25", "smtp://mail:25"),
        ("file:///a@b", "file:///a@b"),
        ("files", "files"),
    ],
)
def test_a_stores_address(url: str, shown: str) -> None:
    assert without_user(url) == shown
