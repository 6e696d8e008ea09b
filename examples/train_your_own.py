"""Train on your own folder, start to finish: pictures in, a searchable gallery out.

    python examples/train_your_own.py PICTURES --vl blip
    python examples/train_your_own.py PICTURES --vl clip --titles titles.txt

`--vl` takes `blip` or `clip`, any Hub id, or the path of a folder. The first run downloads it. Pictures need no labels.
Titles, tags or captions, one a line and of any pictures, teach the sentence to give way to words; without them the
method is trained as it was published. An interrupted run goes on when the command is repeated.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import click

from image2sentence import Gallery, QueryEngine, index_pictures, load_encoder
from image2sentence.training.phrase_bank import from_words
from image2sentence.training.train import TrainRequest, read_settings, train

VL = {"blip": "Salesforce/blip-itm-base-coco", "clip": "openai/clip-vit-large-patch14"}
FREQUENT = 200


def write_words(titles: Path, out: Path) -> tuple[tuple[Path], tuple[Path]]:
    """Files: the phrase bank, and modifiers made of the words that the titles use most."""
    lines = [line.strip() for line in titles.read_text(encoding="utf-8").splitlines() if line.strip()]
    counts = Counter(word for line in lines for word in re.findall(r"[^\W\d_]{3,}", line.lower()))
    modifiers = from_words([word for word, _ in counts.most_common(FREQUENT)])
    out.mkdir(parents=True, exist_ok=True)
    bank, changes = out / "phrases.txt", out / "modifiers.txt"
    bank.write_text("\n".join(lines), encoding="utf-8")
    changes.write_text("\n".join(modifiers), encoding="utf-8")
    return (bank,), (changes,)


def train_model(pictures: Path, vl: str, light: str, out: Path, titles: Path | None, steps: int) -> Path:
    """The model folder."""
    changes: dict[str, object] = {"steps": steps}
    phrases: tuple[Path, ...] = ()
    modifiers: tuple[Path, ...] = ()
    if titles is None:
        changes["modifier_weight"] = 0.0
    else:
        phrases, modifiers = write_words(titles, out)
    settings = read_settings(None, changes)
    request = TrainRequest(pictures, vl, light, out, settings, phrases=phrases, modifiers=modifiers)
    record = train(request)
    print(f"trained on {record['pictures']} pictures in {record['seconds'] / 60:.1f} minutes")
    print(f"a held-out picture's sentence finds it: {record['validation_recall@1']:.1f} %")
    return out / "model"


def search(pictures: Path, model: Path, folder: Path, words: str) -> None:
    """Index the pictures with the new model, and ask for the first of them, changed by the words."""
    encoder = load_encoder(model)
    with Gallery.open_or_create(folder, encoder.fingerprint, encoder.width) as gallery:
        report = index_pictures(pictures, gallery, encoder)
        print(f"indexed {report.found} pictures, {report.encoded} of them new")
        reference = min(path.absolute() for path in pictures.rglob("*") if path.suffix in (".jpg", ".png"))
        answer = QueryEngine(encoder, gallery).search([reference], words, 5)
    print(f'{reference.name} + "{words}":')
    for result in answer.results:
        print(f"  {result.score:.3f}  {result.path}")


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--vl", default="blip", show_default=True, help="blip, clip, a Hub id or a folder.")
@click.option("--light", default="tiny", show_default=True, help="The light encoder.")
@click.option(
    "--titles", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Words, one a line."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/mine"))
@click.option("--steps", default=2_000, show_default=True)
@click.option("--words", default="but red", show_default=True, help="What to ask for in the end.")
def main(pictures: Path, vl: str, light: str, titles: Path | None, out: Path, steps: int, words: str) -> None:
    """Train a light query side on the folder PICTURES, index them, and search."""
    model = train_model(pictures, VL.get(vl, vl), light, out, titles, steps)
    search(pictures, model, out / "gallery", words)


if __name__ == "__main__":
    main()
