"""Command groups whose help keeps their order and whole summaries."""

from __future__ import annotations

import click

_WHOLE = 400
"""Characters of a summary: more than any has."""


class OrderedGroup(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order of use."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every command with the whole first sentence of its help."""
        commands = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        shown = [(name, one.get_short_help_str(_WHOLE)) for name, one in commands if not one.hidden]
        if shown:
            with formatter.section("Commands"):
                formatter.write_dl(shown)
