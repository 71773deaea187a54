"""config.toml in the data folder, read and written; the environment overrides it. What may be in it: `service.config`.

`[ingest] budget_bytes = 1` is `CLIPKEEP_INGEST_BUDGET_BYTES=1` in the environment. Unknown keys are refused: a
misspelt limit must not pass for a set one.
"""

from __future__ import annotations

import json
import math
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ingest.protocols.cors import origins_of
from service.agreement.openid.settings import parse as parse_elsewhere
from service.clients import HEADERS, parse_proxies
from service.config import Config
from service.partners import parse_partners
from service.tls.pairs import TLS_VERSIONS, parse_pairs
from storage.errors import CallerError
from storage.promise import Survives


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read config.toml, then the environment.

    Raises:
        CallerError: no TOML, an unknown table or key, a value of the wrong type or out of bounds; the text names
            the file, the key and what is allowed. `config_open`: others may change it, or read a secret in it.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CallerError(
            "no such file: run `clipkeep init`, or say where the data folder is with --data",
            subject=str(path),
            code="no_data_folder",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CallerError(f"not TOML: {error}", subject=str(path), code="bad_config") from error
    except OSError as error:
        raise CallerError(
            f"cannot be read: {error.strerror}", subject=str(path), code="no_data_folder"
        ) from error
    _require_private(path, document)
    _refuse_unknown_variables(environ)
    sections: dict[str, Any] = {}
    for section in fields(Config):
        table = document.pop(section.name, {})
        if not isinstance(table, dict):
            raise _bad(path, section.name, "is a table: write [" + section.name + "]")
        sections[section.name] = _section(section.default_factory, section.name, table, path, environ)  # type: ignore[arg-type]
    if document:
        known = ", ".join(f.name for f in fields(Config))
        raise _bad(path, next(iter(document)), f"no such table; there are {known}")
    config = Config(**sections)
    if config.ingest.share_bytes < config.ingest.max_chunk_bytes:
        raise _bad(path, "ingest.share_bytes", "is at least max_chunk_bytes")
    if config.ingest.budget_bytes < config.ingest.share_bytes:
        raise _bad(path, "ingest.budget_bytes", "is at least share_bytes")
    try:
        parse_origins(config.api.cors_origins)
    except ValueError as error:
        raise _bad(path, "api.cors_origins", str(error)) from None
    try:
        origins_of(config.ingest.cors_origins)
    except ValueError as error:
        raise _bad(path, "ingest.cors_origins", str(error)) from None
    if config.api.ingest_url and not _ORIGIN.fullmatch(config.api.ingest_url.rstrip("/")):
        raise _bad(path, "api.ingest_url", "is an address such as https://in.example, without a path")
    try:
        parse_proxies(config.ingest.trusted_proxies)
    except ValueError as error:
        raise _bad(path, "ingest.trusted_proxies", str(error)) from None
    try:
        parse_proxies(config.http.trusted_proxies)
    except ValueError as error:
        raise _bad(path, "http.trusted_proxies", str(error)) from None
    try:
        parse_partners(config.agreement.partners)
    except ValueError as error:
        raise _bad(path, "agreement.partners", str(error)) from None
    try:
        re.compile(config.agreement.serial_pattern)
    except re.error as error:
        raise _bad(path, "agreement.serial_pattern", f"is a regular expression: {error}") from None
    if config.agreement.serial_list and not Path(config.agreement.serial_list).is_absolute():
        raise _bad(path, "agreement.serial_list", "is a whole path, from / on")
    if config.notices.public_url and not _ORIGIN.fullmatch(config.notices.public_url.rstrip("/")):
        raise _bad(path, "notices.public_url", "is an address such as https://clips.example, without a path")
    try:
        parse_elsewhere(config.openid)
    except ValueError as error:
        raise _bad(path, "openid", str(error)) from None
    if config.http.forwarded_header not in HEADERS:
        raise _bad(path, "http.forwarded_header", f"is one of {', '.join(HEADERS)}")
    if config.tls.least_version not in TLS_VERSIONS:
        raise _bad(path, "tls.least_version", f"is one of {', '.join(TLS_VERSIONS)}")
    try:
        parse_pairs(config.tls)
    except ValueError as error:
        raise _bad(path, "tls.certificate", str(error)) from None
    if config.home.survives not in (words := [kind.word for kind in Survives]):
        raise _bad(path, "home.survives", f"is one of {', '.join(words)}")
    if config.payments.gateway not in GATEWAYS:
        raise _bad(path, "payments.gateway", f"is one of {', '.join(GATEWAYS)}")
    if config.payments.keys and config.payments.key_file:
        raise _bad(path, "payments.key_file", "is empty when keys is set: there is one place for them")
    return config


GATEWAYS = ("record", "http")


def _require_private(path: Path, document: dict[str, Any]) -> None:
    """Refuse a file that others may change, and one with a secret in it that others can read: what is in a folder
    that they can't enter is private whatever its own mode."""
    try:
        mode, folder = path.stat().st_mode, path.absolute().parent.stat().st_mode
    except OSError:  # it has just been read: gone meanwhile
        return
    reached = folder & (stat.S_IXGRP | stat.S_IXOTH)
    if reached and (
        mode & stat.S_IWOTH or (_holds_secret(document) and mode & (stat.S_IRWXG | stat.S_IRWXO))
    ):
        raise CallerError(
            f"others on this machine may use it (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}",
            subject=str(path),
            code="config_open",
        )


def _holds_secret(document: dict[str, Any]) -> bool:
    """Whether the file itself has a text of which people may not see all."""
    for section in fields(Config):
        table = document.get(section.name)
        for spec in fields(section.default_factory):  # type: ignore[arg-type]
            value = table.get(spec.name) if isinstance(table, dict) else None
            if isinstance(value, str) and _masked(spec, value) != value:
                return True
    return False


def _section(
    kind: type[Any], name: str, table: dict[str, Any], path: Path, environ: Mapping[str, str]
) -> Any:
    values: dict[str, Any] = {}
    known = {f.name: f for f in fields(kind)}
    for key, value in table.items():
        if f"{name}.{key}" in REPLACED and value:
            raise _bad(path, f"{name}.{key}", f"is now {REPLACED[f'{name}.{key}']}")
        if f"{name}.{key}" in RETIRED | REPLACED.keys():
            continue
        if key not in known:
            raise _bad(path, f"{name}.{key}", f"no such key; there are {', '.join(known)}")
        values[key] = _checked(value, known[key], path, f"{name}.{key}")
    for key, spec in known.items():
        variable = _variable(f"{name}.{key}")
        if variable in environ:
            value = _from_text(environ[variable], spec, variable)
            values[key] = _checked(value, spec, Path(variable), f"{name}.{key}")
    return kind(**values)


RETIRED = {"agreement.code_attempts", "api.live_reach_ms", "api.live_step_ms"}
"""Keys of earlier releases that mean nothing any more: a file or a variable that sets one is passed over."""
REPLACED = {"agreement.trust_forwarded_for": "[http] trusted_proxies: name the addresses of your proxy there"}
"""Keys of earlier releases that another one took the place of. Whoever sets one is told so, but for `false`, which
means what it did."""

_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+")


def parse_origins(text: str) -> list[str]:
    """Origins (RFC 6454 §6.2) that are separated by commas; `*` alone is any.

    Raises:
        ValueError: one that no browser would send.
    """
    found = [origin.strip() for origin in text.split(",") if origin.strip()]
    for origin in found:
        if not _ORIGIN.fullmatch(origin) and found != ["*"]:
            raise ValueError(
                f"{origin!r} is no origin: write it as the browser does, https://name or https://name:port,"
                " in lower case and without a path; * alone is any"
            )
    return found


_BY_KUBERNETES = re.compile(r"SERVICE_(HOST|PORT.*)|PORT(_.*)?")
"""What a Kubernetes service named clipkeep-ingest or the like puts into everyone's environment."""


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    passed_over = {_variable(key) for key in RETIRED}
    replaced = {_variable(key): by for key, by in REPLACED.items()}
    for section in fields(Config):
        prefix = f"CLIPKEEP_{section.name.upper()}_"
        known = {_variable(f"{section.name}.{spec.name}") for spec in fields(section.default_factory)}  # type: ignore[arg-type]
        for variable in environ:
            if not variable.startswith(prefix) or variable in known | passed_over:
                continue
            if variable in replaced:
                if environ[variable] != "false":
                    raise _wrong_variable(variable, f"is now {replaced[variable]}")
            elif not _BY_KUBERNETES.fullmatch(variable.removeprefix(prefix)):
                raise _wrong_variable(variable, f"no such setting; there are {', '.join(sorted(known))}")


def _variable(key: str) -> str:
    """That overrides `table.key`."""
    return f"CLIPKEEP_{key.replace('.', '_')}".upper()


def _wrong_variable(variable: str, detail: str) -> CallerError:
    return CallerError(detail, subject=variable, code="bad_config")


def _from_text(text: str, spec: Any, variable: str) -> Any:
    if isinstance(spec.default, str):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise _wrong_variable(variable, f"{text[:100]!r} is no value of this kind") from error


def _checked(value: Any, spec: Any, path: Path, name: str) -> Any:
    kind = type(spec.default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        found = "" if spec.metadata["masked"] else f", not {value!r}"
        raise _bad(path, name, f"is {_KINDS[kind]}{found}")
    least, most = spec.metadata["least"], spec.metadata["most"]
    if (least is not None and value < least) or (most is not None and value > most):
        raise _bad(path, name, f"is {value}; allowed is {_bounds(least, most)}")
    return value


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}


def _bounds(least: float | None, most: float | None) -> str:
    if most is None:
        return f"at least {least}"
    return f"{least} to {most}"


def _bad(path: Path, name: str, detail: str) -> CallerError:
    return CallerError(f"{name}: {detail}", subject=str(path), code="bad_config")


def _masked(spec: Any, value: Any) -> Any:
    """A value as people may see it."""
    masked = spec.metadata["masked"]
    return value if masked is None else masked(value)


def config_document(config: Config) -> dict[str, dict[str, Any]]:
    """Every value by table and key, secrets masked: for programs."""
    tables = {section.name: getattr(config, section.name) for section in fields(Config)}
    return {
        name: {spec.name: _masked(spec, getattr(values, spec.name)) for spec in fields(values)}
        for name, values in tables.items()
    }


def render_config(config: Config, *, masked: bool = False) -> str:
    """config.toml with every key, its meaning and its bounds; keys at their default are comments.

    Args:
        masked: for people's eyes. A value that is not shown whole is a comment: pasted into a file, `***` would be
            taken for a password.
    """
    lines = ["# Clipkeep's configuration. A line that begins with # shows the default.", ""]
    for section in fields(Config):
        values = getattr(config, section.name)
        lines.append(f"[{section.name}]")
        for spec in fields(values):
            bounds = spec.metadata["least"], spec.metadata["most"]
            note = "" if bounds == (None, None) else f" ({_bounds(*bounds)})"
            value = getattr(values, spec.name)
            shown = _masked(spec, value) if masked else value
            lines.append(f"# {spec.metadata['doc']}{note}")
            mark = "# " if value == spec.default or shown != value else ""
            lines.append(
                f"{mark}{spec.name} = {_toml(shown)}{'' if shown == value else ' (set, and not shown)'}"
            )
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML string, but for one control character that JSON lets pass.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
