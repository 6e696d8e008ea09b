"""Losses of one batch."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from image2sentence.encoders.template import Template
from image2sentence.training import losses
from image2sentence.training import phrase_bank as phrases
from image2sentence.training.distributed import Processes
from image2sentence.training.models.token_learner import Sentence
from image2sentence.training.settings import TrainSettings
from image2sentence.training.vl.base import VisionLanguageModel, Words


@dataclass(frozen=True)
class Draws:
    """Where a step's random choices come from: both in the same state on every process."""

    rng: random.Random
    generator: torch.Generator


@dataclass(frozen=True)
class Change:
    """Own pictures' modifiers, and where the joint batch's changed pictures should be (n, d)."""

    modifiers: list[str]
    targets: Tensor


class Objective(nn.Module):
    """The losses of one batch; holds the learned temperature, and the frozen model outside of its own parameters.

    Where several processes train together, sentences and patches are those of a process's own rows, all else is of
    the joint batch, and so are the losses: every process computes the same.
    """

    def __init__(
        self,
        vl: VisionLanguageModel,
        settings: TrainSettings,
        bank: phrases.PhraseBank | None,
        processes: Processes,
    ) -> None:
        super().__init__()
        self._vl, self.settings, self.bank, self.processes = [vl], settings, bank, processes
        self.template = Template.parse(settings.template)
        self.temperature = settings.temperature_for(vl.temperature)
        start = torch.tensor(math.log(self.temperature))
        self.log_temperature = nn.Parameter(start, requires_grad=settings.learn_temperature)

    @property
    def vl(self) -> VisionLanguageModel:
        """The frozen model."""
        return self._vl[0]

    def forward(
        self,
        sentence: Sentence,
        gallery: Tensor,
        pseudo: Tensor | None,
        patches: Tensor | None,
        draws: Draws,
        queue: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Named losses, unweighted.

        `sentence` and `patches` (c, N, C) of own rows, patches of the first of them; `gallery` (B, d), `pseudo` (B, k)
        bank indices and `queue` (Q, d), others' gallery vectors, of the joint batch.
        """
        settings = self.settings
        captions = None
        if pseudo is not None and settings.caption_weight:
            captions = self._captions(pseudo, draws.rng)
        change = self._change(gallery, pseudo, draws.rng)
        queries, changed = self._read_both(sentence, [] if change is None else change.modifiers)
        result = {"gcd": self._gcd(queries, gallery, queue)}
        if patches is not None:
            result["lar"] = self._lar(sentence, gallery, queries, patches, draws.generator)
        if captions is not None:
            result["caption"] = losses.mean_squared(queries, self._phrases.vectors[captions])
        if change is not None:
            result["modifier"] = self._modifier(changed, change.targets)
        return result

    def weights(self) -> dict[str, float]:
        """Each named loss's weight."""
        s = self.settings
        return {
            "gcd": s.gcd_weight,
            "lar": s.lar_weight,
            "caption": s.caption_weight,
            "modifier": s.modifier_weight,
        }

    def lar_kind(self) -> str:
        """What `lar` comes to for this VL model: matching, local or off."""
        if self.settings.lar != "auto":
            return self.settings.lar if self.settings.lar_weight else "off"
        return ("matching" if self.vl.has_matching else "local") if self.settings.lar_weight else "off"

    def _read_both(self, sentence: Sentence, modifiers: list[str]) -> tuple[Tensor, Tensor]:
        """Text vectors of own sentences, and of the first of them with the modifiers -> those of the joint batch."""
        alone, changed = self.vl.encode_both(sentence.tokens, sentence.gates, modifiers, self.template)
        join = self.processes.join
        return join(alone.float()), join(changed.float()) if modifiers else changed

    def _read(self, texts: list[str]) -> Tensor:
        """Text vectors of own texts without a sentence -> the joint batch's (B, d)."""
        return self.processes.join(self.vl.encode_rows(self.vl.words(texts)).float())

    def _gcd(self, queries: Tensor, gallery: Tensor, queue: Tensor | None) -> Tensor:
        temperature = self.log_temperature.exp()
        if self.settings.gcd in losses.GCD:
            return losses.GCD[self.settings.gcd](queries, gallery, temperature)
        if self.settings.gcd == "mse":
            return losses.mean_squared(queries, gallery)
        if self.settings.gcd == "kl":
            return losses.similarity_kl(queries, gallery, temperature)
        return losses.info_nce(
            queries, gallery, temperature, symmetric=self.settings.gcd == "symmetric", queue=queue
        )

    def _lar(
        self,
        sentence: Sentence,
        gallery: Tensor,
        queries: Tensor,
        patches: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        if self.lar_kind() == "local":
            return self._local(sentence, gallery, patches)
        count, joint = len(patches), self.processes.join(patches)
        words = self.vl.compose(sentence.tokens[:count], sentence.gates[:count], [""] * count, self.template)
        near = losses.hard_negatives(
            queries[: len(joint)], gallery[: len(joint)], self.temperature, generator
        )
        wrong = joint[near[self.processes.part].clamp(min=0)]
        both = Words(torch.cat([words.embeddings] * 2), torch.cat([words.bias] * 2))
        logits = self.vl.match(both, torch.cat([patches, wrong])).float()
        join = self.processes.join
        return losses.matching(join(logits[:count]), join(logits[count:])[near >= 0])

    def _local(self, sentence: Sentence, gallery: Tensor, patches: Tensor) -> Tensor:
        count, places = len(patches), self.vl.place_vectors(patches)
        attention = losses.resize_attention(sentence.attention[:count], math.isqrt(places.shape[1]))
        words = self.vl.word_vectors(sentence.tokens[:count])
        join = self.processes.join
        joint = join(words.float())
        own = gallery[: len(joint)]
        return losses.local_alignment(
            joint,
            join(places.float()),
            join(attention.float()),
            self.temperature,
            losses.same_rows(own, own),
        )

    @property
    def _phrases(self) -> phrases.PhraseBank:
        assert self.bank is not None  # the trainer asks for one where a loss needs it
        return self.bank

    def _captions(self, pseudo: Tensor, rng: random.Random) -> list[int]:
        """One of each picture's pseudo-captions (n, k), as the phrase bank numbers them."""
        return self._phrases.draw_captions(pseudo, rng)

    def _change(self, gallery: Tensor, pseudo: Tensor | None, rng: random.Random) -> Change | None:
        """What is asked of the first of the pictures; None where modifier-aware distillation is off."""
        if pseudo is None or not self.settings.modifier_weight:
            return None
        bank, part = self._phrases, self.processes.part
        asked = self.settings.modifier_batch or len(gallery)
        chosen = self._captions(pseudo[:asked], rng)
        modifiers = bank.draw_modifiers(chosen, rng)[part]
        texts = [f"{bank.phrases[i]} {m}" for i, m in zip(chosen[part], modifiers, strict=True)]
        with torch.no_grad():
            alone = self._read(modifiers) if bank.needs_modifiers else None
            return Change(modifiers, bank.targets(chosen, self._read(texts), gallery[:asked], alone))

    def _modifier(self, queries: Tensor, target: Tensor) -> Tensor:
        if self.settings.modifier == "mse":
            return losses.mean_squared(queries, target)
        return losses.info_nce(queries, target, self.log_temperature.exp())
