"""The command line: `image2sentence`, or `i2s`."""

from __future__ import annotations

import time

STARTED = time.perf_counter()
"""When the command began; taken before anything else is imported, so that printed times leave nothing out."""


def main() -> None:
    """Run the command line."""
    from image2sentence.cli.main import cli

    cli()
