"""VL models of full size through the product's own commands: train, export, index, search; peak memory of each.

    python -m benchmarks.training.full_size blip|clip|siglip

The weights are random and in the Hub's format, the sizes those of Salesforce/blip-itm-base-coco,
openai/clip-vit-large-patch14 and google/siglip-base-patch16-224; the tokenizer is of each one's kind, with a vocabulary
learned from the bundled phrases. Nothing is said here about quality: the run shows that the sizes go through, and what
they take.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
)

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders.model_folder import bundled

SETTINGS = ("batch=16", "lar_batch=4", "save_every=2", "warmup=1", "validation=8")
KIBIBYTES = 2**20  # in a GiB: getrusage counts in KiB

# A process counts as its own peak what its parent took when it was forked, hence a small parent.
WATCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass(frozen=True)
class Kind:
    """How a kind of VL model is made: the model, its tokenizer, and the files that stand beside both."""

    model: Callable[[int], Any]
    tokenizer: Callable[[list[str]], Tokenizer]
    tokenizer_config: dict[str, Any]
    processor: dict[str, Any]


def blip(layers: int) -> Any:
    """BLIP-base: ViT-B/16 at 384 px, a BERT-base with cross-attention, projections of 256."""
    deep = {"num_hidden_layers": layers} if layers else {}
    text = {"vocab_size": 30524, "encoder_hidden_size": 768, **deep}
    vision = {"image_size": 384, **deep}
    return BlipForImageTextRetrieval(
        BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=256)
    )


def clip(layers: int) -> Any:
    """CLIP ViT-L/14 at 224 px, its text tower of 12 layers of width 768."""
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "patch_size": 14}
    vision["num_hidden_layers"] = layers or 24
    text["num_hidden_layers"] = layers or 12
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=768))


def siglip(layers: int) -> Any:
    """SigLIP base, patches of 16 at 224 px, both towers of 12 layers of width 768."""
    deep = {"num_hidden_layers": layers} if layers else {}
    text = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, **deep}
    return SiglipModel(SiglipConfig(text_config=text, vision_config=deep))


def word_pieces(texts: list[str]) -> Tokenizer:
    """BERT's kind."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=30522, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_pairs(texts: list[str]) -> Tokenizer:
    """CLIP's kind: byte pairs that know where a word ends."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(words, "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    start, end = "<|startoftext|>", "<|endoftext|>"
    trainer = trainers.BpeTrainer(
        vocab_size=49408,
        special_tokens=[start, end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing((end, 1), (start, 0), False, False)
    return tokenizer


def pieces(texts: list[str]) -> Tokenizer:
    """SentencePiece's unigram kind, as SigLIP's tokenizer.json has it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=32000, special_tokens=["<unk>", "</s>"], unk_token="<unk>")
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def square(kind: str, side: int, **more: Any) -> dict[str, Any]:
    """A preprocessor_config.json."""
    return {"image_processor_type": kind, "size": {"height": side, "width": side}, **more}


KINDS = {
    "blip": Kind(blip, word_pieces, {"tokenizer_class": "BertTokenizer"}, square("BlipImageProcessor", 384)),
    "clip": Kind(
        clip,
        byte_pairs,
        {"tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"},
        square("CLIPImageProcessor", 224, size={"shortest_edge": 224}, do_center_crop=True),
    ),
    "siglip": Kind(
        siglip,
        pieces,
        {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>"},
        square("SiglipImageProcessor", 224),
    ),
}


@torch.no_grad()
def save_vl(kind: Kind, folder: Path, layers: int) -> int:
    """A model with random weights in the Hub's format; its parameters."""
    torch.manual_seed(0)
    model = kind.model(layers)
    for parameter in model.parameters():  # as quiet as they start, hardly any picture differs from another
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    texts = (bundled() / "vl" / "phrases.txt").read_text(encoding="utf-8").splitlines()
    kind.tokenizer(texts).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(kind.tokenizer_config))
    (folder / "preprocessor_config.json").write_text(json.dumps(kind.processor))
    return sum(parameter.numel() for parameter in model.parameters())


def measured(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak GiB of one `image2sentence` process. Ends the program where the command fails."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "image2sentence", *arguments]
    done = subprocess.run(
        [sys.executable, "-c", WATCHER, *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started, int(done.stdout.split()[-1]) / KIBIBYTES


@click.command()
@click.argument("name", type=click.Choice(sorted(KINDS)))
@click.option("--steps", default=3, show_default=True, help="Steps of training.")
@click.option("--pictures", default=40, show_default=True, help="Drawn pictures.")
@click.option("--layers", default=0, help="Of each tower, for a quick look; 0: as many as the real one has.")
def main(name: str, steps: int, pictures: int, layers: int) -> None:
    """Take the VL model NAME through all commands."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        count = save_vl(KINDS[name], folder / "vl", layers)
        drawn = write_catalogue(folder / "drawn", pictures, 0, 384) / "images"
        (folder / "phrases.txt").write_text("a red shirt\na blue mug\na green dress with long sleeves\n")
        (folder / "modifiers.txt").write_text("in blue\nbut striped\n")
        print(f"{name}: {count / 1e6:.0f} M parameters, {pictures} pictures, {steps} steps of 16")
        run_stages(folder, drawn, steps)
        size = sum(path.stat().st_size for path in (folder / "exported").rglob("*") if path.is_file())
        print(f"exported folder {size / 2**30:8.2f} GiB")


def run_stages(folder: Path, drawn: Path, steps: int) -> None:
    """Each command as a process of its own."""
    words = ["--phrases", f"{folder}/phrases.txt", "--modifiers", f"{folder}/modifiers.txt"]
    settings = [word for change in (f"steps={steps}", *SETTINGS) for word in ("--set", change)]
    model, gallery = ["--model", f"{folder}/exported"], ["--gallery", f"{folder}/gallery"]
    stages = {
        "train": [str(drawn), "--vl", f"{folder}/vl", "--out", f"{folder}/run", *words, *settings],
        "export": [f"{folder}/run/model", "--out", f"{folder}/exported", "--pictures", str(drawn)],
        "index": [str(drawn), *model, *gallery],
        "search": [str(sorted(drawn.iterdir())[0]), "but red", *model, *gallery],
    }
    stages["export"] += ["--benchmark", "0"]
    for stage, arguments in stages.items():
        seconds, memory = measured([stage, *arguments])
        print(f"{stage:<14}{seconds:8.1f} s{memory:8.2f} GiB peak", flush=True)


if __name__ == "__main__":
    main()
