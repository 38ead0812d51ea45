"""Commands whose modules are imported when they are called: to list them must be quick."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

from erank_lite.cli.output import output


class LazyGroup(TyperGroup):
    """A group whose commands are names and lines of help; `app` of a name's module is the command.

    A command that is called takes its line of help along, which so stands in one place.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command from its module, and the rest of the arguments."""
        name, listed, rest = super().resolve_command(ctx, args)
        if name is None or listed is None:  # only while a shell completes
            return name, listed, rest
        command: Any = typer.main.get_command(importlib.import_module(f"{__package__}.{name}").app)
        command.help = listed.help
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        with output():
            return super().invoke(ctx)
