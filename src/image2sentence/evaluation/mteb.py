"""Adapter for the image tasks of MTEB 2.

MTEB: Muennighoff et al., EACL 2023; its image tasks: Xiao et al., 2025.

    import mteb
    from image2sentence.evaluation.mteb import MtebEncoder

    mteb.evaluate(MtebEncoder(), tasks=mteb.get_tasks(tasks=["CIRRIT2IRetrieval"]))

Needs `pip install 'image2sentence[mteb]'`, which installs torch. MTEB's protocols are its own: for CIRR it keeps the
reference in the ranking and reports nDCG@10, so its figures are not those of `evaluation.datasets.cirr`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from PIL import Image

from image2sentence.encoders.onnx_encoder import OnnxEncoder, load_encoder
from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import DataError

QUERY, DOCUMENT = "query", "document"


class MtebEncoder:
    """Satisfies MTEB's `EncoderProtocol`.

    Documents go through the gallery side. Queries go the way of users: picture and words are composed, a picture alone
    is read by the light side, words alone by the text encoder. Where a task tells no queries from documents
    (classification, clustering, zero-shot), pictures go through the gallery side.

    Args:
        encoder: The model; None: the one that `load_encoder()` gives.
        name: "organisation/model", under which MTEB files the results.
    """

    def __init__(self, encoder: Encoder | None = None, name: str = "image2sentence/default") -> None:
        self.encoder = load_encoder() if encoder is None else encoder
        self.name = name

    def encode(
        self,
        inputs: Iterable[Mapping[str, Sequence[Any]]],
        *,
        prompt_type: Any = None,
        **_: Any,
    ) -> Vectors:
        """Batches of `image`, `text` or both -> (n, d) float32 unit rows, in order.

        Instructions that a task brings along are not read to the model.

        Raises DataError for documents of picture and words, and for what is neither; QueryError for words longer
        than the model reads.
        """
        role = None if prompt_type is None else str(getattr(prompt_type, "value", prompt_type))
        rows = [self._encode_batch(batch, role) for batch in inputs]
        return np.concatenate(rows) if rows else np.empty((0, self.encoder.width), np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """(n, m) dot products, as a torch tensor."""
        from mteb.similarity_functions import dot_score

        return dot_score(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """(n,) dot products of rows, as a torch tensor."""
        from mteb.similarity_functions import pairwise_dot_score

        return pairwise_dot_score(embeddings1, embeddings2)

    @property
    def mteb_model_meta(self) -> Any:
        """What MTEB writes beside the results; the revision is that of the weights on both sides."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        return ModelMeta.create_empty(
            overwrites={
                "name": self.name,
                "revision": self._revision(),
                "embed_dim": self.encoder.width,
                "similarity_fn_name": ScoringFunction.DOT_PRODUCT,
                "modalities": ["image", "text"],
                "framework": ["ONNX"],
                "languages": ["eng-Latn"],
                "experiment_kwargs": {"image2sentence": metadata.version("image2sentence")},
            }
        )

    def _revision(self) -> str:
        gallery = self.encoder.fingerprint[:12]
        if not isinstance(self.encoder, OnnxEncoder):
            return gallery
        return f"{gallery}-{self.encoder.config.query_fingerprint[:12]}"

    def _encode_batch(self, batch: Mapping[str, Sequence[Any]], role: str | None) -> Vectors:
        pictures, texts = _pictures(batch.get("image")), batch.get("text")
        if pictures is None:
            if texts is None:
                raise DataError(
                    f"expected a batch with 'image' or 'text', got {', '.join(batch) or 'nothing'}"
                )
            return self.encoder.encode_queries(None, list(texts))
        if role == QUERY:
            words = [""] * len(pictures) if texts is None else [text or "" for text in texts]
            return self.encoder.encode_queries(self.encoder.encode_sentences(pictures), words)
        if texts is not None and any(texts):
            raise DataError("documents of a picture with words have no vector in this model's space")
        return self.encoder.encode_images(pictures)


def _pictures(column: Sequence[Any] | None) -> list[Image.Image] | None:
    if column is None:
        return None
    for number, picture in enumerate(column):
        if not isinstance(picture, Image.Image):
            raise DataError(f"expected pictures, got {type(picture).__name__} in row {number} of a batch")
    return [picture.convert("RGB") for picture in column]
