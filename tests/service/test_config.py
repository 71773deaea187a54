"""Configuration: every key has a meaning and bounds, and nothing misspelt passes for set."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.receiving import Limits
from service.api import ApiServices
from service.config import Config, StoreSettings
from service.config_text import config_document, load_config, render_config
from service.worker import limits_of
from storage.errors import CallerError

SECTIONS = [section.name for section in fields(Config)]
KEYS: list[tuple[str, Field[Any]]] = [
    (name, key) for name in SECTIONS for key in fields(getattr(Config(), name))
]
NUMBERS = [(name, key) for name, key in KEYS if type(key.default) in (int, float)]


def loaded(tmp_path: Path, text: str, **environ: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text, "utf-8")
    return load_config(path, environ)


def refused(tmp_path: Path, text: str, **environ: str) -> CallerError:
    with pytest.raises(CallerError) as caught:
        loaded(tmp_path, text, **environ)
    assert caught.value.code == "bad_config"
    return caught.value


def value_of(config: Config, section: str, key: str) -> Any:
    return getattr(getattr(config, section), key)


TEXTS = {
    "cors_origins": "https://b.example",
    "ingest_url": "https://in.example",
    "trusted_proxies": "10.0.0.0/8",
    "forwarded_header": "forwarded",
    "survives": "server_crash",
    "gateway": "http",
    "serial_list": "/etc/serials",
    "certificate": "/etc/clipkeep.pem",
    "key": "/etc/clipkeep.key",
    "least_version": "1.3",
    "partners": "acme: account email",
    "public_url": "https://clips.example",
}
"""What a key may be set to that takes no text of any kind."""


def test_an_empty_file_means_all_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == Config()


@pytest.mark.parametrize(("section", "key"), KEYS, ids=lambda k: getattr(k, "name", k))
def test_every_key_says_what_it_is(section: str, key: Field[Any]) -> None:
    assert len(key.metadata["doc"]) > 8
    assert f"# {key.metadata['doc']}" in render_config(Config())


@pytest.mark.parametrize(("section", "key"), NUMBERS, ids=lambda k: getattr(k, "name", k))
def test_every_number_has_bounds_that_hold(tmp_path: Path, section: str, key: Field[Any]) -> None:
    least, most = key.metadata["least"], key.metadata["most"]
    assert least <= key.default <= most
    for value in (least - 1, most + 1):
        error = refused(tmp_path, f"[{section}]\n{key.name} = {value}")
        assert error.subject.endswith("config.toml")
        assert f"{section}.{key.name}" in error.detail
        assert f"{least} to {most}" in error.detail


def test_providers_are_read_together(tmp_path: Path) -> None:
    text = (
        '[openid]\nproviders = "acme https://id.example clipkeep"\nredirect_uris = "https://app.example/back"\n'
        'trusted_emails = "acme"\n'
    )
    config = loaded(tmp_path, text, CLIPKEEP_OPENID_SECRETS="acme hush")
    assert config.openid.secrets == "acme hush"
    assert "hush" not in render_config(config, masked=True)
    for wrong in (
        text.replace("https://id", "http://id"),
        text.replace("https://app", "http://app"),
        text.replace('"acme"', '"other"'),
        text.replace("acme https", "Acme! https"),
        '[openid]\nproviders = "acme https://id.example clipkeep"\n',
    ):
        assert refused(tmp_path, wrong).subject.endswith("config.toml")


@pytest.mark.parametrize(("section", "key"), KEYS, ids=lambda k: getattr(k, "name", k))
def test_every_key_can_be_set_in_the_file_and_in_the_environment(
    tmp_path: Path, section: str, key: Field[Any]
) -> None:
    if section == "openid" and isinstance(key.default, str):
        pytest.skip("they hang together: test_providers_are_read_together")
    if (section, key.name) == ("tls", "key"):
        pytest.skip("it hangs together with tls.certificate: tests/service/tls/test_certificates.py")
    default: Any = key.default
    value: Any = {int: 17, float: 0.5, bool: True, str: "s3://b"}[type(default)]
    if type(default) in (int, float):
        value += default
    value = TEXTS.get(key.name, value)
    if key.name in (
        "max_chunk_bytes",
        "default_days",
        "lapse_grace_days",
        "share_bytes",
        "trial_notice_days",
    ):
        value = default - 1  # bounded by another key, or by the layout of a bitmap row
    text = f'"{value}"' if isinstance(value, str) else str(value).lower()
    assert value_of(loaded(tmp_path, f"[{section}]\n{key.name} = {text}"), section, key.name) == value
    variable = f"CLIPKEEP_{section}_{key.name}".upper()
    plain = value if isinstance(value, str) else text
    config = loaded(tmp_path, f"[{section}]\n", **{variable: plain})
    assert value_of(config, section, key.name) == value


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    text = "[segments]\nlinger_ms = 5\nmax_segments = 3"
    config = loaded(tmp_path, text, CLIPKEEP_SEGMENTS_LINGER_MS="7")
    assert (config.segments.linger_ms, config.segments.max_segments) == (7, 3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[ingest]\nbugdet_bytes = 1", "ingest.bugdet_bytes"),
        ("[retenton]\nlapse_grace_days = 1", "retenton"),
        ("linger_ms = 1", "linger_ms"),
        ("ingest = 1", "[ingest]"),
        ("[[ingest]]\nbudget_bytes = 1", "[ingest]"),
        ("[ingest]\nmax_connections = true", "a whole number"),
        ("[ingest]\nmax_connections = 1.5", "a whole number"),
        ('[ingest]\nmax_connections = "5"', "a whole number"),
        ("[ingest]\nbody_grace_s = nan", "a number"),
        ("[ingest]\nbody_grace_s = inf", "a number"),
        ("[ingest]\nbody_grace_s = 2020-01-01", "a number"),
        ("[clock]\ntest = 1", "true or false"),
        ("[store]\nurl = 5", "a text in quotes"),
        ("[ingest", "not TOML"),
        (
            "[ingest]\nshare_bytes = 16777216\nbudget_bytes = 33554432\nmax_chunk_bytes = 16777217",
            "max_chunk",
        ),
        ("[ingest]\nshare_bytes = 600000000", "ingest.budget_bytes"),
        ('[api]\ncors_origins = "https://a.example/page"', "api.cors_origins"),
        ('[ingest]\ncors_origins = "*"', "ingest.cors_origins"),
        ('[ingest]\ntrusted_proxies = "here"', "ingest.trusted_proxies"),
        ('[tls]\nleast_version = "1.1"', "tls.least_version"),
        ('[tls]\ncertificate = "a.pem"', "tls.certificate"),
        ('[api]\ningest_url = "https://in.example/path"', "api.ingest_url"),
        ('[api]\ncors_origins = "*, https://a.example"', "api.cors_origins"),
        ('[http]\ntrusted_proxies = "10.0.0.1/8"', "http.trusted_proxies"),
        ('[http]\ntrusted_proxies = "proxy.internal"', "http.trusted_proxies"),
        ('[http]\nforwarded_header = "x-real-ip"', "http.forwarded_header"),
        ('[home]\nsurvives = "all"', "home.survives"),
        ('[payments]\ngateway = "paypal"', "payments.gateway"),
        ('[payments]\nkeys = "a"\nkey_file = "b"', "payments.key_file"),
        ("[agreement]\ntrust_forwarded_for = true", "[http] trusted_proxies"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    error = refused(tmp_path, text)
    assert named in error.detail
    assert error.subject == str(tmp_path / "config.toml")


def test_keys_that_mean_nothing_any_more_are_passed_over(tmp_path: Path) -> None:
    """So that a folder of an earlier release still starts."""
    text = "[api]\nlive_reach_ms = 600000\nlive_step_ms = 60000\n[agreement]\ncode_attempts = 5\n"
    text += "trust_forwarded_for = false"
    variables = {"CLIPKEEP_API_LIVE_STEP_MS": "60000", "CLIPKEEP_AGREEMENT_TRUST_FORWARDED_FOR": "false"}
    assert loaded(tmp_path, text, **variables) == Config()


def test_a_variable_of_an_earlier_release_names_what_took_its_place(tmp_path: Path) -> None:
    error = refused(tmp_path, "", CLIPKEEP_AGREEMENT_TRUST_FORWARDED_FOR="true")
    assert (error.subject, error.code) == ("CLIPKEEP_AGREEMENT_TRUST_FORWARDED_FOR", "bad_config")
    assert "[http] trusted_proxies" in error.detail
    others = refused(tmp_path, "", CLIPKEEP_API_LIVE_STEPS="1").detail
    assert "CLIPKEEP_API_LIVE_STEP_MS" not in others  # what means nothing any more is not offered


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CLIPKEEP_INGEST_BUDGET_BYTES", "lots"),
        ("CLIPKEEP_INGEST_BUDGET_BYTES", ""),
        ("CLIPKEEP_INGEST_BUDGET_BYTES", "1"),
        ("CLIPKEEP_CLOCK_TEST", "1"),
        ("CLIPKEEP_INGEST_BUGDET_BYTES", "1"),
        ("CLIPKEEP_STORE_ULR", "s3://b"),
    ],
)
def test_a_variable_that_is_wrong_is_named(tmp_path: Path, variable: str, value: str) -> None:
    assert refused(tmp_path, "", **{variable: value}).subject == variable


@pytest.mark.parametrize(
    "variable",
    [
        "CLIPKEEP_DATA",
        "CLIPKEEP_S3_ENDPOINT",
        "CLIPKEEP_S3_PACING",
        "CLIPKEEP_INGEST_SERVICE_HOST",
        "CLIPKEEP_API_PORT",
        "CLIPKEEP_API_PORT_8081_TCP_ADDR",
        "CLIPKEEP_INGEST_SERVICE_PORT_HTTP",
        "INGEST_BUDGET_BYTES",
    ],
)
def test_variables_that_are_no_settings_are_left_alone(tmp_path: Path, variable: str) -> None:
    assert loaded(tmp_path, "", **{variable: "x"}) == Config()


def test_a_missing_or_unreadable_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for path in ("absent", "folder", "file/config.toml"):
        with pytest.raises(CallerError) as caught:
            load_config(tmp_path / path, {})
        assert caught.value.code == "no_data_folder"
    (tmp_path / "latin").write_bytes(b"[store]\nurl = '\xe9'")
    with pytest.raises(CallerError) as caught:
        load_config(tmp_path / "latin", {})
    assert caught.value.code == "bad_config"


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_what_is_rendered_reads_back(url: str) -> None:
    config = Config(store=StoreSettings(url=url))
    found = tomllib.loads(render_config(config))
    assert found["store"] == ({"url": url} if url else {})


def test_the_rendered_file_shows_every_key_and_sets_only_what_differs(tmp_path: Path) -> None:
    plain = render_config(Config())
    assert tomllib.loads(plain) == {name: {} for name in SECTIONS}
    for _, key in KEYS:
        assert f"# {key.name} = " in plain
    config = Config()
    for section, key in NUMBERS:
        value = key.metadata["most"] if key.name != "share_bytes" else 1 << 30
        default: Any = key.default
        values = replace(getattr(config, section), **{key.name: type(default)(value)})
        config = replace(config, **{section: values})
    assert loaded(tmp_path, render_config(config)) == config
    assert "\n# budget_bytes" not in render_config(config)


def test_defaults_are_those_of_what_they_feed() -> None:
    config = Config()
    assert limits_of(config.ingest) == Limits()
    fed = {key.name: key.default for key in fields(ApiServices) if key.default is not MISSING}
    assert fed.pop("report_keys") is None  # of the file that [payments] names
    assert fed.pop("max_stale_ns") == 0  # as where home is a folder; else [hosts] max_stale_s
    assert fed.pop("ingest_tls") is False  # as without [tls]
    assert fed.pop("answer_s") == config.home.answer_s
    del fed["errands"], fed["workers"]  # who carries out and who counts, not how much
    assert fed.pop("openid_threads") == config.openid.threads
    for key in fields(config.api):
        assert fed[key.name] == key.default, key.name
    assert set(fed) == {key.name for key in fields(config.api)}


# --- secrets ----------------------------------------------------------------------------------------------------

SECRET = "Hunter2"


def test_no_secret_is_shown_and_the_file_keeps_it(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "",
        CLIPKEEP_STORE_URL=f"s3://key:{SECRET}@bucket/prefix",
        CLIPKEEP_NOTICES_MAIL=f"smtp://ada:{SECRET}@mail:25",
        CLIPKEEP_NOTICES_MOBILE=f"https://u:{SECRET}@hook.example:8443/{SECRET}?token={SECRET}",
        CLIPKEEP_NOTICES_SMTP_PASSWORD=SECRET,
    )
    shown = render_config(config, masked=True)
    for text in (shown, str(config_document(config)), repr(config)):
        assert SECRET not in text
    assert '# smtp_password = "***" (set, and not shown)' in shown
    assert '# mobile = "https://***@hook.example:8443/***" (set, and not shown)' in shown
    assert '# url = "s3://***@bucket/prefix" (set, and not shown)' in shown
    assert loaded(tmp_path, shown) == Config()  # nobody gets *** for a password by pasting it
    assert loaded(tmp_path, render_config(config)) == config


def test_a_config_without_secrets_is_shown_as_it_is(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[store]\nurl = "s3://b/p"\n[notices]\nmobile = "https://hook.example"\n')
    assert render_config(config, masked=True) == render_config(config)
    assert config_document(config)["store"] == {"url": "s3://b/p"}
    assert config_document(config)["ingest"]["max_connections"] == config.ingest.max_connections


def test_a_secret_of_the_wrong_kind_is_not_repeated(tmp_path: Path) -> None:
    error = refused(tmp_path, "[notices]\nsmtp_password = 19283746\n")
    assert "notices.smtp_password: is a text in quotes" in str(error)
    assert "19283746" not in str(error)


@pytest.mark.parametrize(
    ("mode", "text", "fine"),
    [
        (0o600, '[notices]\nsmtp_password = "x"\n', True),
        (0o640, '[notices]\nsmtp_password = "x"\n', False),
        (0o644, '[notices]\nmobile = "https://hook.example/x"\n', False),
        (0o644, "", True),
        (0o666, "", False),
    ],
)
def test_others_read_no_secret_and_change_nothing(tmp_path: Path, mode: int, text: str, fine: bool) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(mode)
    load_config(path, {})  # nobody else gets into the folder
    tmp_path.chmod(0o755)
    if fine:
        load_config(path, {})
        return
    with pytest.raises(CallerError, match="chmod 600") as caught:
        load_config(path, {})
    assert caught.value.code == "config_open"
