"""The loss of attribute values, for pictures and captions, beside the contrastive one.

Every attribute value and every emoji subject has a vector of its own in the joint space. A picture's vector has to lie
nearest to its own values' vectors, attribute by attribute, and a caption's to those of the values that it allows, of
the attributes that it names. The contrastive loss alone learns a detail only where a batch has two pictures
that differ in nothing else; this one learns all of a picture's details at every step. The vectors are thrown away
afterwards: the VL model keeps its two towers and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from recipes.bundled import language

THING = "thing"
_GARMENTS = frozenset({"drawn", "photo"})


class AttributeTable:
    """The attributes, where each one's values lie among all values, and what `records` show of them.

    Drawn products and photographs name their types differently, so each has an attribute of its own for it.
    """

    def __init__(self, records: Sequence[language.Record], subjects: Mapping[str, int]) -> None:
        values = {name: options for name, options in language.VALUES.items() if name != "source"}
        values |= {f"type of {source}": values["type"] for source in _GARMENTS} | {THING: tuple(subjects)}
        del values["type"]
        self.names = tuple(values)
        self.sizes = tuple(len(options) for options in values.values())
        self._starts = dict(zip(self.names, np.cumsum([0, *self.sizes[:-1]]).tolist(), strict=True))
        self._places = {
            name: {value: place for place, value in enumerate(options)} for name, options in values.items()
        }
        self.shown = np.full((len(records), len(self.names)), -1, np.int64)
        for row, record in enumerate(records):
            for column, name in enumerate(self.names):
                value = record.get(_attribute(name, record["source"]))
                if value:
                    self.shown[row, column] = self._places[name].get(value, -1)

    def of_pictures(self, index: NDArray[np.int64]) -> Tensor:
        """(B, attributes) int64: the place of what each picture shows among the attribute's values; -1 unknown."""
        return torch.from_numpy(self.shown[index])

    def of_captions(self, captions: Sequence[language.Caption]) -> tuple[Tensor, Tensor]:
        """(captions, values) bool: allowed; (captions, attributes) bool: named at all."""
        allowed = torch.zeros(len(captions), sum(self.sizes), dtype=torch.bool)
        stated = torch.zeros(len(captions), len(self.names), dtype=torch.bool)
        for row, caption in enumerate(captions):
            right: dict[str, frozenset[str]] = dict(caption.allowed)
            if caption.thing in self._places[THING]:
                right[THING] = frozenset({caption.thing})
            for column, name in enumerate(self.names):
                for value in right.get(_attribute(name, caption.source), ()):
                    allowed[row, self._starts[name] + self._places[name][value]] = True
                    stated[row, column] = True
        return allowed, stated


def _attribute(name: str, source: str) -> str:
    """The record's attribute behind a table's `name`; "" where a picture of this source has none."""
    if not name.startswith("type of "):
        return name
    return "type" if name.endswith(source) else ""


class AttributeLoss(nn.Module):
    """The loss: cross-entropy over each attribute's values, for pictures and for captions, times `weight`.

    Logits are scaled dot products of unit vectors. A caption that allows several values of an attribute is right with
    any of them: its loss is minus the log of their joint probability.
    """

    def __init__(self, table: AttributeTable, width: int, weight: float) -> None:
        super().__init__()
        self.sizes, self.weight = table.sizes, weight
        self.values = nn.Parameter(torch.randn(sum(self.sizes), width) / math.sqrt(width))
        self.log_scale = nn.Parameter(torch.tensor(math.log(15.0)))

    def forward(
        self, pictures: Tensor, texts: Tensor, shown: Tensor, allowed: Tensor, stated: Tensor
    ) -> Tensor:
        """Pictures (B, d), texts (captions, d), and of `AttributeTable` what they show, allow and name."""
        return self.weight * (self._of_pictures(pictures, shown) + self._of_texts(texts, allowed, stated))

    def _logits(self, vectors: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(vectors.device.type, enabled=False):
            values = functional.normalize(self.values, dim=-1)
            scale = self.log_scale.clamp(max=math.log(40)).exp()
            return (scale * vectors.float() @ values.T).split(self.sizes, dim=1)

    def _of_pictures(self, pictures: Tensor, shown: Tensor) -> Tensor:
        losses = [
            functional.cross_entropy(logits, shown[:, column], ignore_index=-1, reduction="sum")
            for column, logits in enumerate(self._logits(pictures))
        ]
        return torch.stack(losses).sum() / len(pictures)

    def _of_texts(self, texts: Tensor, allowed: Tensor, stated: Tensor) -> Tensor:
        losses = [
            _mass_missed(logits[about], right[about])
            for logits, right, about in zip(
                self._logits(texts), allowed.split(self.sizes, dim=1), stated.T, strict=True
            )
        ]
        return torch.stack(losses).sum() / len(texts)


def _mass_missed(logits: Tensor, right: Tensor) -> Tensor:
    """Minus the log of the probability of all values in `right`, summed over rows."""
    return (logits.logsumexp(1) - logits.masked_fill(~right, -math.inf).logsumexp(1)).sum()
