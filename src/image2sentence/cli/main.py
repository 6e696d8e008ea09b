"""Table of commands, and errors as messages and exit codes.

A user never sees a traceback.

Each command is a module of this package that imports what is heavy inside its function, so that `--help` and
mistyped commands answer at once.
"""

from __future__ import annotations

from typing import Any

import click

from image2sentence import __version__
from image2sentence.cli.bench import bench
from image2sentence.cli.catalogue import catalogue
from image2sentence.cli.data import data
from image2sentence.cli.evaluate_public import evaluate
from image2sentence.cli.gallery import gallery
from image2sentence.cli.groups import OrderedGroup
from image2sentence.cli.guide import guide
from image2sentence.cli.index import index
from image2sentence.cli.info import info
from image2sentence.cli.models import models
from image2sentence.cli.output import configure_streams
from image2sentence.cli.search import search
from image2sentence.cli.serve import serve
from image2sentence.cli.train import export, train
from image2sentence.cli.train_text import train_text
from image2sentence.errors import Image2SentenceError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class Commands(OrderedGroup):
    """A group whose commands' errors are shown as messages."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program, with output in any encoding."""
        configure_streams()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except Image2SentenceError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:  # `| head`: click's own
            raise
        except OSError as error:
            raise click.ClickException(_message(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted. What was finished is kept; the next run goes on from there.", err=True)
            ctx.exit(INTERRUPTED)


def _message(error: OSError) -> str:
    """What the system said, and of what."""
    from image2sentence.images import display_path

    where = "" if error.filename is None else f" ({display_path(error.filename)})"
    return (
        f"{error.strerror or error}{where}: check that it is there, its permissions, and the room on the disk"
    )


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="image2sentence")
def cli() -> None:
    """Search your own pictures with a picture plus words."""


for command in (
    index,
    search,
    serve,
    info,
    models,
    gallery,
    catalogue,
    evaluate,
    data,
    train,
    train_text,
    export,
    guide,
    bench,
):
    cli.add_command(command)
