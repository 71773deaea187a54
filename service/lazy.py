"""Groups of commands that are loaded when they are asked for: what is seldom used costs the other commands nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command


def with_lazy_groups(groups: Mapping[str, Callable[[], typer.Typer]]) -> type[TyperGroup]:
    """The class of a Typer application that also has these groups of commands, each loaded by its function."""

    class WithLazyGroups(TyperGroup):
        # `Any` stands for types of Click, of which Typer has a copy of its own.
        def list_commands(self, ctx: Any) -> list[str]:
            return [*super().list_commands(ctx), *groups]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in groups:
                return super().get_command(ctx, cmd_name)
            command = get_command(groups[cmd_name]())
            command.name = cmd_name
            return command

    return WithLazyGroups
