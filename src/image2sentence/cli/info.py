"""`image2sentence info`: the model, the gallery and the versions in use."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import click

from image2sentence import __version__
from image2sentence.cli.options import (
    find_gallery,
    gallery_option,
    gallery_place,
    json_option,
    model_option,
    print_json,
    print_table,
    require_gallery,
)
from image2sentence.errors import GalleryError, ModelError

PACKAGES = ("onnxruntime", "numpy", "pillow", "tokenizers")
PROBLEM = "problem"


@click.command()
@gallery_option
@model_option
@json_option
@click.pass_context
def info(ctx: click.Context, gallery: Path | str | None, model: Path | None, as_json: bool) -> None:
    """Show the model, the gallery and the versions in use.

    Ends with exit code 1 where the model or the gallery cannot be used, after saying why.
    """
    from image2sentence.indexing.model_choice import space_of

    about_model = _model(model, space_of(find_gallery(gallery)))
    sections = {
        "model": about_model,
        "gallery": _gallery(gallery, about_model.get("fingerprint")),
        "versions": {"python": platform.python_version(), **_packages()},
    }
    if as_json:
        print_json(sections)
    else:
        for title, rows in sections.items():
            click.echo(title)
            print_table(rows)
    if any(PROBLEM in rows for rows in sections.values()):
        ctx.exit(1)


def _versions() -> dict[str, str]:
    return {"image2sentence": __version__, "python": platform.python_version(), **_packages()}


def _packages() -> dict[str, str]:
    from importlib import metadata  # reads mail's headers, which `search` has no need of

    return {name: metadata.version(name) for name in PACKAGES}


def _model(model: Path | None, space: str | None) -> dict[str, Any]:
    from image2sentence.encoders import load_encoder
    from image2sentence.encoders.scope import about_model

    try:
        encoder = load_encoder(model, space=space)
    except ModelError as error:
        return {PROBLEM: str(error)}
    config = encoder.config
    about = about_model(encoder)
    return {
        **({} if about is None else {name: said for name, said in vars(about).items() if said}),
        "folder": encoder.folder.path,
        "vl": f"{config.vl.name} ({config.vl.kind})",
        "light": config.light,
        "tokens": config.learner.tokens,
        "width": config.width,
        "megabytes": round(encoder.folder.bytes / 1e6, 1),
        "fingerprint": encoder.fingerprint,
    }


def _gallery(gallery: Path | str | None, fingerprint: str | None) -> dict[str, Any]:
    if find_gallery(gallery) is None:
        return {"name": "none in this folder or above it; `image2sentence index PICTURES` makes one"}
    from image2sentence.gallery.opening import open_gallery

    try:
        with open_gallery(require_gallery(gallery)) as opened:
            about = {
                "name": gallery_place(opened),
                "pictures": len(opened),
                "failed": len(opened.pictures("failed")),
                "roots": list(opened.roots().values()),
                "created": opened.created,
                "fingerprint": opened.fingerprint,
            }
    except GalleryError as error:
        return {PROBLEM: str(error)}
    if fingerprint is not None and fingerprint != about["fingerprint"]:
        about[PROBLEM] = (
            f"made with another model: this one is {fingerprint}; index again into another folder"
        )
    return about
