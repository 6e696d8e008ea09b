"""`image2sentence evaluate cirr|fashioniq|circo|genecis|domain-conversion`: public benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from image2sentence.cli.evaluate import describe_model, evaluate, other_models
from image2sentence.cli.options import device_option, model_option, progress_bar

if TYPE_CHECKING:
    from image2sentence.encoders import OnnxEncoder
    from image2sentence.encoders.protocols import Encoder
    from image2sentence.evaluation.audit import Audit
    from image2sentence.evaluation.evaluate import Evaluation
    from image2sentence.evaluation.features import Opener
    from image2sentence.evaluation.kept_gallery import KeptVectors
    from image2sentence.evaluation.kept_sentences import KeptSentences
    from image2sentence.evaluation.public_benchmarks import LoadedBenchmarks
    from image2sentence.evaluation.report import ModelDescription

__all__ = ["evaluate"]

STANDARD_OUTPUT = "-"

_COMMON = (
    click.option(
        "--root",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        required=True,
        metavar="DIR",
        help="The dataset's annotations and pictures, in the layout of its download.",
    ),
    model_option,
    device_option,
    click.option(
        "--also",
        multiple=True,
        metavar="ROW=MODEL",
        help="A row of another model of the same vector space; may be repeated.",
    ),
    click.option(
        "--gallery",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="KEPT",
        help="Keep pictures' vectors and references' sentences below this folder. Default: .image2sentence-kept "
        "in --root.",
    ),
    click.option(
        "--json",
        "json_file",
        is_flag=False,
        flag_value=STANDARD_OUTPUT,
        metavar="[OUT]",
        help="Write the report with every query's values to OUT too; without OUT, print it instead of the table.",
    ),
    click.option(
        "--audit",
        is_flag=True,
        help="Also: references above right answers, queries that one modality alone solves, six wordings.",
    ),
)
_split = click.option("--split", help="The split. Default: val.")
_submission = click.option(
    "--submission",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what the evaluation server takes: a file (CIRCO), or a folder of two files (CIRR).",
)
_submission_row = click.option(
    "--submission-row",
    default="composed",
    show_default=True,
    metavar="ROW",
    help="The row that is submitted: composed, one of --also, image only, or text only.",
)


def _options(*own: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((*_COMMON, *own)):
            function = option(function)
        return function

    return decorate


@evaluate.command()
@_options(_split, _submission, _submission_row)
def cirr(**given: Any) -> None:
    """CIRR: recall@1, 5, 10, 50 without the reference, and recall@1, 2, 3 in each query's subset.

    Of the split test1, whose answers are hidden, two submission files are written (--submission FOLDER).
    """
    _run("cirr", **given)


@evaluate.command()
@_options(
    click.option(
        "--caption-rule", metavar="RULE", help="Default: both-orders-averaged; c1 and c2; c2 and c1."
    ),
    click.option("--part", multiple=True, metavar="CATEGORY", help="dress, shirt or toptee. Default: all."),
)
def fashioniq(**given: Any) -> None:
    """FashionIQ val: recall@10 and 50 of each category, and their plain mean."""
    _run("fashioniq", **given)


@evaluate.command()
@_options(
    _split,
    click.option("--caption-rule", metavar="RULE", help="relative caption, or ... with shared concept."),
    _submission,
    _submission_row,
)
def circo(**given: Any) -> None:
    """CIRCO: mAP and recall at 5, 10, 25, 50, and mAP@10 of each semantic aspect.

    Of the split test, whose answers are hidden, a submission file is written (--submission FILE).
    """
    _run("circo", **given)


@evaluate.command()
@_options(
    click.option(
        "--part", multiple=True, metavar="TASK", help="focus_object, ... Default: all that are there."
    )
)
def genecis(**given: Any) -> None:
    """GeneCIS: recall@1, 2, 3 of its four tasks in each query's own gallery, and their plain mean."""
    _run("genecis", **given)


@evaluate.command("domain-conversion")
@_options(
    click.option(
        "--template", metavar="WORDS", help='How a domain is asked for. Default: "in {domain} style".'
    ),
    click.option("--unanswerable", metavar="RULE", help="count as zero (default), or leave out."),
)
def domain_conversion(**given: Any) -> None:
    """ImageNet to ImageNet-R: recall@10 and 50 over all right answers, and of each domain."""
    _run("domain-conversion", **given)


def _run(
    name: str,
    root: Path,
    model: Path | None,
    device: str,
    also: Sequence[str],
    gallery: Path | None,
    json_file: str | None,
    audit: bool,
    split: str | None = None,
    part: Sequence[str] = (),
    submission: Path | None = None,
    submission_row: str = "",
    **loader: str | None,
) -> None:
    from image2sentence.encoders import load_encoder
    from image2sentence.evaluation.audit import audit_public
    from image2sentence.evaluation.evaluate import default_composers
    from image2sentence.evaluation.kept_gallery import DEFAULT_FOLDER, keep_vectors
    from image2sentence.evaluation.kept_sentences import KeptSentences
    from image2sentence.evaluation.public_benchmarks import ROWS, evaluate_kept, load_benchmarks

    root = root.absolute()
    for option, place in (("--json", json_file), ("--submission", submission)):
        _require_place(option, place)
    chosen = {key: value for key, value in loader.items() if value is not None}
    loaded = load_benchmarks(name, root, split, part, **chosen)
    hidden = any(one.hidden for one in loaded.parts)
    if hidden and submission is None:
        raise click.UsageError(
            "the right answers of this split are hidden: write a submission (--submission)"
        )
    encoder = load_encoder(model, device=device)
    others = {row: load_encoder(folder, device=device) for row, folder in other_models(also, ROWS).items()}
    composers = default_composers(encoder) | others
    place = gallery or root / DEFAULT_FOLDER
    with progress_bar("gallery") as progress:
        kept = keep_vectors(loaded.files, root, encoder, place, progress)
    _say_kept(loaded, kept)

    def open_image(image: str) -> Any:
        return loaded.files[image].open(root)

    evaluations, audits = [], []
    with progress_bar("sentences of references") as progress:
        sentences = KeptSentences(place, kept.contents, progress)
        if submission is not None:
            _submit(submission, submission_row, loaded, root, encoder, composers, open_image, kept, sentences)
        for one in () if hidden else loaded.parts:
            click.echo(f"{one.name} {one.split}: {len(one.queries):,} queries", err=True)
            made = evaluate_kept(one, encoder, open_image, kept.vectors, composers, sentences)
            evaluations.append(made)
            if audit:
                audits.append(audit_public(made, encoder, open_image, kept.vectors, composers, sentences))
    click.echo(f"encoded {sentences.encoded:,} sentences of references", err=True)
    if evaluations:
        _report(evaluations, audits, describe_model(encoder, others), json_file)


def _require_place(option: str, place: str | Path | None) -> None:
    """Better known before hours of encoding than after."""
    if place is None or place == STANDARD_OUTPUT:
        return
    folder = Path(place).absolute().parent
    if not folder.is_dir():
        raise click.BadParameter(f"there is no folder {folder}", param_hint=option)


def _say_kept(loaded: LoadedBenchmarks, kept: KeptVectors) -> None:
    from image2sentence.images import display_path

    count = len({file.key for file in loaded.files.values()})
    click.echo(
        f"encoded {kept.encoded:,} pictures; {count:,} are kept in {display_path(kept.folder)}", err=True
    )
    for name in loaded.absent:
        click.echo(f"not run, its annotations are not there: {name}", err=True)


def _submit(
    place: Path,
    row: str,
    loaded: LoadedBenchmarks,
    root: Path,
    encoder: OnnxEncoder,
    composers: Mapping[str, Encoder],
    open_image: Opener,
    kept: KeptVectors,
    sentences: KeptSentences,
) -> None:
    from image2sentence.evaluation.public_benchmarks import query_vectors
    from image2sentence.evaluation.submissions import write_circo_submission, write_cirr_submission

    (benchmark,) = loaded.parts
    vectors = query_vectors(benchmark, encoder, open_image, kept.vectors, composers, row, sentences)
    ids = benchmark.needed_ids()
    queries = [query.id for query in benchmark.queries]
    features = (ids, kept.of(ids), queries, vectors)
    written: Sequence[Path]
    if benchmark.name == "cirr":
        written = write_cirr_submission(place, root, *features, split=benchmark.split)
    else:
        written = (write_circo_submission(place, root, *features, split=benchmark.split),)
        if note := benchmark.options.get("gallery", "").partition(", ")[2]:
            click.echo(f"gallery: {note}", err=True)
    for file in written:
        click.echo(f"wrote {file} (row {row})", err=True)


def _report(
    evaluations: Sequence[Evaluation], audits: Sequence[Audit], model: ModelDescription, json_file: str | None
) -> None:
    from image2sentence.evaluation.public_benchmarks import part_means
    from image2sentence.evaluation.report import (
        as_document,
        as_text,
        aspects_as_text,
        means_as_document,
        means_as_text,
        write_json,
    )

    means = part_means(evaluations) if len(evaluations) > 1 else None
    documents = [as_document(one, model) for one in evaluations]
    for document, audit in zip(documents if audits else (), audits, strict=True):
        document["audit"] = audit.as_dict()
    if means is None:
        (whole,) = documents
    else:
        whole = {"parts": documents, "mean": means_as_document(means)}
    if json_file == STANDARD_OUTPUT:
        click.echo(json.dumps(whole, indent=1))
        return
    for place, evaluation in enumerate(evaluations):
        click.echo(as_text(evaluation, model) + "\n")
        if aspects := aspects_as_text(evaluation):
            click.echo(aspects + "\n")
        if audits:
            click.echo(audits[place].as_text() + "\n")
    if means is not None:
        click.echo(f"plain mean over {', '.join(one.benchmark.name for one in evaluations)}\n")
        click.echo(means_as_text(means))
    if json_file is not None:
        for file in write_json(Path(json_file), whole):
            click.echo(f"wrote {file}", err=True)
