"""Phrases near a picture's sentence, and words that each pseudo-word adds."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Encoder, KnowsWords, Vectors
from image2sentence.server.nearest_words import NearWord, centred

MAX_PHRASES = 3
MAX_ADDED = 2
MIN_FALL = 0.05
"""By how much the cosine of a word falls at least without the pseudo-word that is said to add it."""

_THINGS_LOOKED_AT = 4
_MIN_SHARE = 0.85
"""Of the best thing's nearness, and of the best phrase's, for others to be shown beside it."""

_COLOURS = "red orange yellow green blue navy purple pink brown beige black white grey"
_PATTERNS = "striped dotted checked floral zigzag"
_THINGS = """
shirt t-shirt blouse sweater jumper hoodie cardigan jacket coat blazer vest dress skirt trousers jeans shorts suit
swimsuit bikini kimono sari scarf gloves hat cap beanie helmet turban tie socks shoes boots sandals sneakers heels bag
handbag backpack briefcase belt glasses sunglasses watch ring crown umbrella cushion pillow mug cup bottle glass
teapot bowl plate spoon knife fork pan lamp candle chair couch bed table door window mirror clock toilet book
newspaper letter envelope box basket bucket broom key hammer scissors pen pencil phone laptop computer keyboard
printer camera television radio headphones microphone guitar violin piano drum trumpet ball football basketball
skateboard bicycle motorcycle car taxi bus truck tractor train tram airplane helicopter rocket boat ship canoe tent
flag kite balloon gift teddy doll robot cat dog horse cow pig sheep goat rabbit mouse rat hamster bear panda koala
lion tiger leopard elephant giraffe zebra camel monkey gorilla wolf fox deer bird chicken duck swan owl eagle parrot
penguin peacock fish shark whale dolphin octopus crab lobster turtle snake frog crocodile snail butterfly bee ant
spider flower rose tulip tree leaf grass cactus mushroom apple orange banana lemon grapes strawberry cherry peach pear
pineapple melon tomato potato carrot corn onion broccoli bread cake cookie pizza hamburger sandwich pie egg cheese
meat noodles rice soup salad chocolate coffee tea wine beer milk man woman boy girl baby person face hand foot heart
star sun moon cloud rain snow fire water mountain beach sea island forest field road bridge house building castle
church tower city street garden park stadium sky
"""


@dataclass(frozen=True)
class Reading:
    """A sentence in words: phrases nearest to the whole of it, best first, and what each pseudo-word adds.

    A phrase's nearness is a cosine; an added word's is by how much its cosine falls without the pseudo-word.
    """

    phrases: list[NearWord]
    added: list[list[NearWord]]


class SentencePhrases:
    """Everyday things with colours and patterns, as vectors of the text encoder without the mean of all of them.

    A thing is near where it stands out: its cosine is further above the mean, in standard deviations, than the greatest
    of as many random ones would be. Where none is, there are no phrases: a model that does not know what a picture
    shows has a nearest phrase, too, which says nothing.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._ready: tuple[list[str], int, Vectors, Vectors] | None = None

    def read(self, sentence: Vectors) -> Reading:
        """The reading of a (1, L, w) sentence; nothing for an encoder whose words are not known."""
        nothing = Reading([], [[] for _ in range(sentence.shape[1])])
        if not isinstance(self._encoder, KnowsWords):
            return nothing
        words, things, vectors, mean = self._vocabulary(self._encoder)
        if not words:
            return nothing
        (whole,) = centred(self._encoder.encode_queries(sentence, [""]), mean)
        phrases = self._phrases(words, (vectors @ whole)[:things], whole, mean)
        said = {word for phrase in phrases for word in phrase.word.split()}
        places = {word: place for place, word in enumerate(words) if word in said}
        if not places or sentence.shape[1] < 2:
            return Reading(phrases, nothing.added)
        return Reading(phrases, self._added(places, vectors, whole, sentence, mean))

    def _phrases(
        self, words: list[str], nearness: NDArray[np.float32], whole: Vectors, mean: Vectors
    ) -> list[NearWord]:
        order = np.argsort(-nearness, kind="stable")[:_THINGS_LOOKED_AT]
        best = nearness[order[0]]
        if best < nearness.mean() + math.sqrt(2 * math.log(len(nearness))) * nearness.std():
            return []
        things = [words[place] for place in order if nearness[place] >= _MIN_SHARE * best]
        phrases = [*things, *(f"{kind} {thing}" for thing in things for kind in words[len(nearness) :])]
        found = centred(self._encoder.encode_queries(None, phrases), mean) @ whole
        ranked = np.argsort(-found, kind="stable")[:MAX_PHRASES]
        kept = [place for place in ranked if found[place] >= _MIN_SHARE * found[ranked[0]]]
        return [NearWord(phrases[place], float(found[place])) for place in kept]

    def _added(
        self, places: dict[str, int], vectors: Vectors, whole: Vectors, sentence: Vectors, mean: Vectors
    ) -> list[list[NearWord]]:
        """For each pseudo-word those words of the phrases whose nearness falls most without it."""
        length = sentence.shape[1]
        without = np.concatenate([np.delete(sentence, place, axis=1) for place in range(length)])
        rest = centred(self._encoder.encode_queries(without, [""] * length), mean)
        words, chosen = list(places), vectors[list(places.values())]
        falls = chosen @ whole - rest @ chosen.T
        return [
            [
                NearWord(words[place], float(row[place]))
                for place in np.argsort(-row, kind="stable")[:MAX_ADDED]
                if row[place] >= MIN_FALL
            ]
            for row in falls
        ]

    def _vocabulary(self, encoder: KnowsWords) -> tuple[list[str], int, Vectors, Vectors]:
        """Known words, those of things first; how many those are; their centred vectors; the mean."""
        with self._lock:
            if self._ready is None:
                things = [word for word in _THINGS.split() if not encoder.unknown_words(word)]
                kinds = [
                    word for word in f"{_COLOURS} {_PATTERNS}".split() if not encoder.unknown_words(word)
                ]
                words = [*things, *kinds] if len(things) > _THINGS_LOOKED_AT else []
                self._ready = self._encoded(words, len(things))
            return self._ready

    def _encoded(self, words: list[str], things: int) -> tuple[list[str], int, Vectors, Vectors]:
        vectors = self._encoder.encode_queries(None, words)
        mean = vectors.mean(axis=0, keepdims=True)
        return words, things, centred(vectors, mean), mean
