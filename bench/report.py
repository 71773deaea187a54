"""A page that a person reads, from the JSON documents of bench runs: facts, promises, plots, all figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench.console import COMPLETE
from bench.errors import BenchError
from bench.plots import Document, plots_of
from bench.results import DISTURBED
from bench.svg import number

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
INDEX = "index.html"
_STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0 }
td, th { border-bottom: 1px solid #ddd; padding: 2px 10px; text-align: right; white-space: nowrap }
td:first-child, th:first-child { text-align: left }
svg { max-width: 100%; height: auto; margin: 1rem 0; display: block }
.facts { color: #555 } .doubt { color: #a33 } .wide { overflow-x: auto }
"""


def read_documents(paths: Sequence[Path]) -> list[Document]:
    """Read what `--output` of the benches wrote.

    Raises:
        BenchError: a file that is none; the text names it.
    """
    return [_read(path) for path in paths]


def _read(path: Path) -> Document:
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise BenchError("is too large to be a bench's results", subject=str(path))
        document = json.loads(path.read_text())
    except OSError as error:
        raise BenchError(f"cannot be read: {error.strerror}", subject=str(path)) from error
    except ValueError as error:
        raise BenchError("is not JSON", subject=str(path)) from error
    needed = ("bench", "ended", "machine", "settings", "measurements")
    if not isinstance(document, dict) or any(name not in document for name in needed):
        raise BenchError("is not what a bench's --output wrote", subject=str(path))
    return document


def write_report(documents: Sequence[Document], output: Path) -> list[Path]:
    """Write one page with its plots inside; into a folder also each plot as a file of its own.

    Args:
        output: a file that ends in .html, or a folder, made when it is not there.

    Raises:
        BenchError: it cannot be written, or the documents are not what benches write.
    """
    try:
        sections = list(_sections(documents))
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError(f"the results lack what a report needs: {error!r}", subject="report") from error
    page = _page(sections)
    try:
        if output.suffix == ".html":
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(page)
            return [output]
        output.mkdir(parents=True, exist_ok=True)
        written = [output / INDEX]
        written[0].write_text(page)
        for name, _, plots in sections:
            for kind, svg in plots.items():
                written.append(output / f"{name}-{kind}.svg")
                written[-1].write_text(svg)
    except OSError as error:
        raise BenchError(f"cannot be written: {error.strerror}", subject=str(output)) from error
    return written


Section = tuple[str, Document, Mapping[str, str]]


def _sections(documents: Sequence[Document]) -> Iterator[Section]:
    """Name each document: by its bench, and by a number from the second of a kind on."""
    limits = next((one for one in documents if one["bench"] == "limits"), None)
    counts: dict[str, int] = {}
    for document in documents:
        bench = str(document["bench"])
        counts[bench] = counts.get(bench, 0) + 1
        name = bench if counts[bench] == 1 else f"{bench}-{counts[bench]}"
        yield name, document, plots_of(document, limits)


def _page(sections: Sequence[Section]) -> str:
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Clipkeep bench</title>',
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Clipkeep bench</h1>",
    ]
    for name, document, plots in sections:
        parts += [f"<h2>{escape(name)}</h2>", _facts(document), _doubts(document)]
        parts += plots.values()
        parts += [_table(document.get("summary") or document["measurements"]), _promises(document)]
    return "\n".join([*parts, "</body></html>", ""])


def _facts(document: Document) -> str:
    machine = document["machine"]
    versions = document.get("versions", {})
    known = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    settings = ", ".join(f"{name} = {value}" for name, value in document["settings"].items())
    lines = (
        f"{document.get('started_at', '')}, commit {document.get('commit') or 'unknown'},"
        f" hot path {document.get('hot_path') or 'as Python'}",
        f"{machine.get('cpu')}, {machine.get('usable_cores')} of {machine.get('cores')} cores, "
        f"{machine.get('memory_bytes', 0) / 2**30:.0f} GiB, Linux {machine.get('kernel')}; "
        f"cores: {document.get('pinned_cores')}",
        known,
        settings,
    )
    return '<p class="facts">' + "<br>".join(escape(line) for line in lines) + "</p>"


def _doubts(document: Document) -> str:
    """Say what a reader must know before believing the figures."""
    doubts = [f"skipped {name}: {reason}" for name, reason in document.get("skipped", {}).items()]
    if document["ended"] != COMPLETE:
        doubts.append(f"this run was not complete: {document['ended']}")
    noisy = sum(map(_is_disturbed, document["measurements"]))
    if noisy:
        doubts.append(
            f"other work on the machine disturbed {noisy} of {len(document['measurements'])} steps: "
            "trust ratios within this run, not absolute figures"
        )
    return "".join(f'<p class="doubt">{escape(doubt)}</p>' for doubt in doubts)


def _is_disturbed(one: Document) -> bool:
    if "disturbed" in one:
        return bool(one["disturbed"])
    window_s = one.get("window_s", 0.0)
    return bool(window_s) and one.get("others_cpu_s", 0.0) > DISTURBED * 2 * window_s


def _promises(document: Document) -> str:
    lines = [
        f"<li>{escape(name)}<ul>{''.join(f'<li>{escape(line)}</li>' for line in said)}</ul></li>"
        for name, said in document.get("promises", {}).items()
    ]
    return f"<p>Measured under these promises:</p><ul>{''.join(lines)}</ul>" if lines else ""


def _table(rows: Sequence[Document]) -> str:
    """Show every plain figure of each row; nested ones (quantiles) as columns of their own."""
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(row.get(name, '–'))}</td>" for name in names) + "</tr>" for row in flat
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name} ")
        elif not isinstance(value, list):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            found[prefix + name] = "–" if value is None else number(value) if is_number else str(value)
    return found
