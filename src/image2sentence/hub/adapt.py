"""Adaptation of a published pair of graphs into an ordinary model folder."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from image2sentence.encoders import model_folder as names
from image2sentence.encoders.config import (
    CompositionConfig,
    LearnerConfig,
    ModelConfig,
    OriginRecord,
    Preprocessing,
    VLRecord,
)
from image2sentence.encoders.known_files import known
from image2sentence.encoders.model_folder import ModelFolder
from image2sentence.encoders.onnx_session import load_session
from image2sentence.encoders.tokenizer_file import encode, read_tokenizer
from image2sentence.errors import ModelError
from image2sentence.hub import graphs, tokenizers
from image2sentence.hub.layouts import Layout
from image2sentence.hub.preprocessing import of_open_clip, of_processor
from image2sentence.strict_json import read_json

LIGHT = "none"
"""`ModelConfig.light` of a model without a light side."""
TEMPLATE = "{sentence} {modifier}"
MAX_DRIFT = {"fp32": 1e-5, "fp16": 5e-3, "int8": 5e-2}
"""Cosine distance up to which words put in as pseudo-words may differ from the words, by the graph's precision."""
_CLIP_LENGTH, _SIGLIP_LENGTH = 77, 64
_TRIED = ("a red dress", "two dogs on a beach")


@dataclass(frozen=True)
class Source:
    """Files of a pair as they lie on this machine.

    Attributes:
        name: What the model is called: a Hub id, or a path.
        revision: The commit that the files are of; "local" for a folder.
        layout: Where the parts lie.
        paths: Name in the layout to file.
        knows: What the model was trained on, and which languages it reads; "" where that is not known.
        license: As the repository says; "" where it says nothing.
        composition: How pictures and words are composed.
    """

    name: str
    revision: str
    layout: Layout
    paths: Mapping[str, Path]
    knows: str = ""
    license: str = ""
    composition: CompositionConfig = field(default_factory=CompositionConfig)

    def settings(self, file: str | None) -> dict[str, Any]:
        """A settings file's content; nothing where there is no such file. Raises ModelError where it is damaged."""
        if file is None:
            return {}
        content = read_json(self.paths[file], ModelError)
        if not isinstance(content, dict):
            raise ModelError(f"{self.paths[file]}: expected a JSON object; fetch it again")
        return content

    def digest(self) -> str:
        """SHA-256 over the names and contents of all files; large ones are read again only where they changed."""
        digest = hashlib.sha256()
        for name in sorted(self.paths):
            digest.update(name.encode())
            digest.update(bytes.fromhex(known(self.paths[name], "sha256", names.file_checksum)))
        return digest.hexdigest()


def adapt(source: Source, out: Path) -> ModelFolder:
    """Writes the model folder `out` whole or not at all.

    Raises ModelError where the pair cannot be used, with what was found, or where there is no room to write it.
    """
    names.check_replaceable(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True
        ) as name:
            draft = Path(name, out.name)
            (draft / "onnx").mkdir(parents=True)
            _write(source, draft)
            names.replace_folder(draft, out)
    except OSError as error:
        raise ModelError(
            f"could not write the model folder {out}: {error.strerror or error}; nothing was changed. Make room, or "
            "name another place in $IMAGE2SENTENCE_CACHE"
        ) from error
    return ModelFolder.open(out)


_Graph = TypeVar("_Graph", graphs.VisionGraph, graphs.TextGraph)


def _write(source: Source, draft: Path) -> None:
    tokenizer, reading = _tokenizer(source)
    layout, head = source.layout, tokenizers.head_length(tokenizer)
    vision = graphs.vision(source.paths[layout.vision])
    preprocessing = _preprocessing(source, vision.size)
    vision = _saved(vision, draft / names.GALLERY_IMAGE)
    text = graphs.text(source.paths[layout.text], head, reading.pad, reading.length)
    _require_rows(source, vision.rows, text.rows)
    text = _saved(text, draft / names.QUERY_TEXT)
    _require_ids(tokenizer, text.words, source.paths[layout.text])
    (draft / names.TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
    (draft / names.CARD).write_text(_card(source), encoding="utf-8")
    fingerprint = _fingerprint(draft / names.GALLERY_IMAGE, preprocessing)
    config = ModelConfig(
        vl=VLRecord(source.name, source.revision, reading.kind, fingerprint),
        light=LIGHT,
        learner=LearnerConfig(tokens=1),
        template=TEMPLATE,
        gallery_preprocessing=preprocessing,
        query_preprocessing=preprocessing,
        width=_width(vision, draft, preprocessing),
        word_width=text.words.shape[1],
        word_norm=float(np.median(np.linalg.norm(text.words[: 2**16], axis=1))),
        head_length=head,
        max_length=text.length or reading.length,
        fingerprint=fingerprint,
        composition=source.composition,
        origin=OriginRecord(
            layout.name,
            source.license,
            source.knows,
            {name: names.file_checksum(path) for name, path in sorted(source.paths.items())},
        ),
    )
    written = [names.TOKENIZER, names.GALLERY_IMAGE, names.QUERY_TEXT]
    config = names.listed(config, draft, written)
    names.write_config(draft, config)
    drift = _drift(draft / names.QUERY_TEXT, tokenizer, head, text.words)
    if drift > MAX_DRIFT[layout.precision[1]]:
        raise ModelError(
            f"{source.paths[layout.text]}: real words put in as pseudo-words are read otherwise than the words "
            f"(cosine distance {drift:.2g}): this text graph cannot be cut; choose another export of the model"
        )
    names.write_config(draft, replace(config, parity={"pseudo_words": {"cosine_distance": drift}}))


@dataclass(frozen=True)
class _Reading:
    """How the text tower reads: its `kind`, the id it fills up with (None: not), and the tokens it reads at most."""

    kind: str
    pad: int | None
    length: int


def _tokenizer(source: Source) -> tuple[Tokenizer, _Reading]:
    layout = source.layout
    path = source.paths[layout.tokenizer]
    folder = layout.tokenizer.rpartition("/")[0]
    own = source.settings(layout.setting("tokenizer_config.json", folder, ""))
    model = source.settings(layout.setting("config.json", folder, _folder(layout.text), ""))
    if path.suffix == ".gz":
        return tokenizers.from_merges(path.read_bytes(), str(path)), _Reading("clip", None, _CLIP_LENGTH)
    graphs.require_content(path)
    tokenizer = read_tokenizer(path.read_bytes(), path)
    open_clip = _open_clip(model).get("text_cfg", {})
    kind = _kind(model, open_clip)
    clean = str((open_clip.get("tokenizer_kwargs") or {}).get("clean", "")) if open_clip else ""
    if kind == "siglip":
        tokenizers.complete_siglip(tokenizer, own, clean)
    else:
        tokenizers.completed(tokenizer, {}, lower=False, clean=clean)
    if own.get("padding_side") == "left":
        raise ModelError(f"{path}: texts are filled up on the left, which is not supported")
    text = model.get("text_config") or {}
    length = open_clip.get("context_length") or text.get("max_position_embeddings")
    if not isinstance(length, int):
        length = _SIGLIP_LENGTH if kind == "siglip" else _CLIP_LENGTH
    return tokenizer, _Reading(kind, _pad(tokenizer, own, text) if kind == "siglip" else None, length)


def _kind(model: Mapping[str, Any], open_clip: Mapping[str, Any]) -> str:
    """ "siglip" for text towers that read a fixed length whatever the text, else "clip"."""
    description = json.dumps(
        [model.get("model_type"), model.get("architectures"), open_clip.get("hf_tokenizer_name")]
    )
    return "siglip" if "siglip" in description.lower() or open_clip.get("pool_type") == "last" else "clip"


def _open_clip(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """open_clip's settings, which some programs keep one level deeper."""
    inner = model.get("model_cfg", model)
    return inner if isinstance(inner, Mapping) and isinstance(inner.get("text_cfg"), Mapping) else {}


def _pad(tokenizer: Tokenizer, own: Mapping[str, Any], text: Mapping[str, Any]) -> int:
    named = tokenizers.token(own, "pad_token")
    found = tokenizer.token_to_id(named) if named is not None else text.get("pad_token_id")
    if found is None:
        found = next((n for n in map(tokenizer.token_to_id, ("<pad>", "</s>", "[PAD]")) if n is not None), 1)
    return int(found)


def _preprocessing(source: Source, size: int | None) -> Preprocessing:
    layout = source.layout
    folder = _folder(layout.vision)
    own = layout.setting("preprocessor_config.json", folder, "")
    if own is not None:
        how = of_processor(source.settings(own), str(source.paths[own]))
    else:
        how = _open_clip_preprocessing(source, folder, size)
    if size is not None and size != how.size:
        raise ModelError(
            f"{source.name}: its preprocessing makes pictures of {how.size} pixels a side, its vision graph reads "
            f"{size}: the files are of different models"
        )
    return how


def _open_clip_preprocessing(source: Source, folder: str, size: int | None) -> Preprocessing:
    layout = source.layout
    own = layout.setting("preprocess_cfg.json", folder, "")
    if own is not None:
        return of_open_clip(source.settings(own), str(source.paths[own]), size)
    for file in ("open_clip_config.json", "config.json"):
        named = layout.setting(file, folder, "")
        settings = source.settings(named).get("preprocess_cfg")
        if isinstance(settings, Mapping):
            return of_open_clip(settings, f"{named}: preprocess_cfg", size)
    if layout.name != "rclip":
        raise ModelError(
            f"{source.name} says nothing of how pictures are prepared: expected preprocessor_config.json or "
            "preprocess_cfg.json beside the vision graph; add the one of the model it was exported from"
        )
    return of_open_clip({}, f"{source.name}: {layout.vision}", size)


def _require_rows(source: Source, *rows: int | None) -> None:
    if fixed := [one for one in rows if one not in (None, 1)]:
        raise ModelError(
            f"{source.name} has a graph for batches of exactly {fixed[0]}: expected any number, or one at a time"
        )


def _require_ids(tokenizer: Tokenizer, words: Any, path: Path) -> None:
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= len(words):
        raise ModelError(
            f"{path} has an embedding table of {len(words):,} tokens, its tokenizer ids up to {highest:,}: "
            "the files are of different models"
        )


def _width(vision: graphs.VisionGraph, draft: Path, how: Preprocessing) -> int:
    """Width of the vectors: what the graph says, else what it gives."""
    if vision.width is not None:
        return vision.width
    session = load_session(draft / names.GALLERY_IMAGE, None, 0)
    pixels = np.zeros((1, 3, how.size, how.size), np.float32)
    return int(session.run(["vectors"], {"pixels": pixels})[0].shape[1])


def _drift(graph: Path, tokenizer: Tokenizer, head: int, words: NDArray[np.float32]) -> float:
    """The largest cosine distance between texts, and the same texts with a first word that comes as a pseudo-word."""
    session, worst = load_session(graph, None, 0), 0.0

    def read(sentence: NDArray[np.float32], ids: list[int]) -> NDArray[np.float64]:
        feed = {"sentence": sentence[None], "ids": np.array([ids], np.int64)}
        row = np.asarray(session.run(["vectors"], feed)[0][0], np.float64)
        return np.asarray(row / np.linalg.norm(row))

    for text in _TRIED:
        ids = encode(tokenizer, text).ids
        whole = read(words[:0], ids)
        said = read(words[ids[head : head + 1]], [*ids[:head], *ids[head + 1 :]])
        worst = max(worst, float(1 - whole @ said))
    return worst


def _fingerprint(graph: Path, how: Preprocessing) -> str:
    """Identity of the vector space: the vision graph as it was written, and what it is fed."""
    content = names.file_checksum(graph) + json.dumps(vars(how), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _saved(graph: _Graph, path: Path) -> _Graph:
    """Writes a graph, and gives it back without its model: one of 1 GB has to leave room for what comes next."""
    path.write_bytes(graph.model.SerializeToString())
    return replace(graph, model=None)


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


def _card(source: Source) -> str:
    lines = [
        f"# {source.name}",
        "",
        f"Made by image2sentence from the {source.layout.name} graphs of {source.name}, revision {source.revision}.",
        f"Licence: {source.license or 'not stated where the files came from'}.",
    ]
    return "\n".join([*lines, source.knows, ""])
