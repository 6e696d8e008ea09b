"""`image2sentence models`: short names of models, and which are here."""

from __future__ import annotations

from typing import Any

import click

from image2sentence.cli.options import json_option, print_json


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List models that --model takes by a short name.

    Any other model of the Hub is named by its id, such as org/name or org/name@REVISION, and a folder by its path.
    Bytes to fetch are approximate; the exact number is shown before a model is fetched.
    """
    from image2sentence.hub.find import is_here
    from image2sentence.hub.table import MODELS

    rows = [
        {
            "name": row.name,
            "knows": row.knows,
            "languages": row.languages,
            "license": row.license,
            "megabytes": row.megabytes,
            "here": is_here(row),
            "repository": row.repository,
        }
        for row in MODELS
    ]
    if as_json:
        print_json(rows)
        return
    for line in _aligned([_cells(row) for row in rows]):
        click.echo(line)


def _cells(row: dict[str, Any]) -> list[str]:
    fetched = "here" if row["here"] else f"about {row['megabytes']:,} MB"
    return [row["name"], row["knows"], row["languages"], row["license"], fetched, row["repository"]]


def _aligned(rows: list[list[str]]) -> list[str]:
    rows = [["name", "knows", "languages", "licence", "to fetch", "on the Hub"], *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
