"""Under whose name a command acts: `--as`, and what that operator's role allows (`service.rights`)."""

from __future__ import annotations

from typing import Annotated

import typer

from retention.operators import BUILT_IN, Act
from service.agreement import operators
from service.agreement.desk import Actor
from service.folder import Opened
from service.rights import COMMANDS
from service.terminal import MAX_REASON_CHARACTERS


class _Name(str):
    """A name, and the command that was run under it: "account suspend"."""

    command: str


def _name_of(context: typer.Context, given: str) -> str:
    name = _Name(given)
    words, here = [], context
    while here.parent is not None:  # what is above all is the program
        words.append(here.info_name or "")
        here = here.parent  # type: ignore[assignment]  # typer says that it is of the class it stands on
    name.command = " ".join(reversed(words))
    return name


As = Annotated[
    str,
    typer.Option(
        "--as",
        envvar="CLIPKEEP_AS",
        metavar="NAME",
        callback=_name_of,
        help="The operator who does this, see `clipkeep operator`: the history names it, and its role must allow it.",
    ),
]
Why = Annotated[
    str,
    typer.Option(
        "--reason",
        help=f"Why, in a few words (at most {MAX_REASON_CHARACTERS} characters): kept in the history. Needed with"
        " --as.",
    ),
]


def acting(opened: Opened, name: str, reason: str = "", *, act: Act | None = None) -> Actor:
    """Who acts, for the command that runs.

    Args:
        name: of an operator; BUILT_IN for whoever runs commands here.
        reason: that was given.
        act: what it is, where an option makes it another than `service.rights` says.

    Raises:
        NotFound; Conflict: `operator_ended`; Forbidden: `role_lacks`; Unprocessable: `reason_needed`, `bad_text`.
    """
    assert isinstance(name, _Name), "it comes from the option"
    actor = operators.called(opened.desk, name)
    return operators.for_act(actor, act or COMMANDS.get(name.command), reason)


__all__ = ["BUILT_IN", "As", "Why", "acting"]
