"""What notices say: a folder of templates, a file for each kind, in the operator's language or as they come in English.

A template is a file `NAME.txt`: a line `Subject: …`, an empty line, the body; `{field}` stands for what differs, `{{`
and `}}` for braces. A translation may leave fields out, and may use no others than the English one does. Its name is
the purpose of the notice, or that, a hyphen and what makes it another one: `receipt-renewed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Formatter

from service.agreement.texts import MAX_SUBJECT_CHARS, paragraphs
from storage.errors import CallerError, WorldError

SUFFIX = ".txt"
MAX_TEMPLATE_BYTES = 100_000
_SUBJECT = "Subject: "


@dataclass(frozen=True, slots=True)
class Template:
    subject: str
    body: str

    @property
    def fields(self) -> frozenset[str]:
        return _fields(self.subject) | _fields(self.body)


@dataclass(frozen=True, slots=True)
class Written:
    """A notice's texts. `purpose`: of its row."""

    purpose: str
    subject: str
    body: str


class Templates:
    """All kinds of notices, by name."""

    def __init__(self, found: Mapping[str, Template]) -> None:
        self._found = found

    def write(self, name: str, fields: Mapping[str, object]) -> Written:
        template = self._found[name]
        # A line break in a value (a reason) would end the subject.
        subject = " ".join(template.subject.format_map(fields).split())
        if len(subject) > MAX_SUBJECT_CHARS:
            subject = subject[: MAX_SUBJECT_CHARS - 1] + "…"
        return Written(name.partition("-")[0], subject, template.body.format_map(fields).strip())

    def __getitem__(self, name: str) -> Template:
        return self._found[name]

    def names(self) -> list[str]:
        return sorted(self._found)


@cache
def shipped() -> Templates:
    """Those that come with this release."""
    found = {}
    for file in files("service.agreement").joinpath("templates").iterdir():
        if file.name.endswith(SUFFIX):
            found[file.name.removesuffix(SUFFIX)] = parsed(file.read_text("utf-8"), file.name)
    return Templates(found)


def load(folder: Path | None) -> Templates:
    """The templates of a folder; None: those that come with this release.

    Raises:
        CallerError: `missing_template`, `unknown_template` (a file of another name), `unknown_field`, `bad_template`;
            `no_templates`, there is no such folder. The subject is the file.
    """
    english = shipped()
    if folder is None:
        return english
    try:
        there = {path.name.removesuffix(SUFFIX): path for path in folder.iterdir() if path.suffix == SUFFIX}
        texts = {name: _read(path) for name, path in there.items()}
    except OSError as error:
        raise CallerError(
            f"[notices] templates can't be read ({error.strerror or error}); `clipkeep notices templates --to` fills a"
            " folder to begin with",
            subject=str(folder),
            code="no_templates",
        ) from error
    if unknown := sorted(set(there) - set(english.names())):
        raise CallerError(
            f"no notice has this name; there are {', '.join(english.names())}",
            subject=str(there[unknown[0]]),
            code="unknown_template",
        )
    if missing := sorted(set(english.names()) - set(there)):
        raise CallerError(
            f"these notices have no template: {', '.join(missing)}; `clipkeep notices templates --to` writes them",
            subject=str(folder / (missing[0] + SUFFIX)),
            code="missing_template",
        )
    found = {name: parsed(text, str(there[name])) for name, text in texts.items()}
    for name, template in found.items():
        if unknown := sorted(template.fields - english[name].fields):
            raise CallerError(
                f"{{{unknown[0]}}} is no field of this notice; there are"
                f" {', '.join(sorted(english[name].fields)) or 'none'}",
                subject=str(there[name]),
                code="unknown_field",
            )
    return Templates(found)


def write_shipped(folder: Path) -> int:
    """Write the English templates into a folder that is new or empty. Returns how many.

    Raises:
        CallerError: `not_empty`; WorldError: `folder_unavailable`.
    """
    english = shipped()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CallerError(
                "it has files in it already; name another folder", subject=str(folder), code="not_empty"
            )
        for name in english.names():
            template = english[name]
            text = f"{_SUBJECT}{template.subject}\n\n{template.body}\n"
            (folder / (name + SUFFIX)).write_text(text, "utf-8")
    except OSError as error:
        raise WorldError(
            f"it can't be written: {error.strerror or error}", subject=str(folder), code="folder_unavailable"
        ) from error
    return len(english.names())


def parsed(text: str, subject: str) -> Template:
    """A template of its file. Raises CallerError `bad_template`."""
    first, _, rest = text.replace("\r\n", "\n").removeprefix("\ufeff").partition("\n")
    if not first.startswith(_SUBJECT) or not rest.startswith("\n"):
        raise _bad(subject, "begins with a line `Subject: …` and an empty line")
    try:
        template = Template(first.removeprefix(_SUBJECT).strip(), paragraphs(rest, "the body"))
        template.fields  # noqa: B018 - reads both
    except ValueError as error:
        raise _bad(subject, f"has a brace that opens or closes nothing ({error}); write it twice") from None
    except CallerError as error:
        raise _bad(subject, error.detail) from None
    if not template.subject:
        raise _bad(subject, "has an empty subject")
    return template


def _fields(text: str) -> frozenset[str]:
    found = set()
    for _, name, spec, conversion in Formatter().parse(text):
        if name is None:
            continue
        if spec or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}}} is no plain field")
        found.add(name)
    return frozenset(found)


def _read(path: Path) -> str:
    data = path.read_bytes()
    if len(data) > MAX_TEMPLATE_BYTES:
        raise _bad(str(path), f"has more than {MAX_TEMPLATE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _bad(str(path), "is not UTF-8") from None


def _bad(subject: str, what: str) -> CallerError:
    return CallerError(f"a template {what}", subject=subject, code="bad_template")
