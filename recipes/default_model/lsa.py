"""Latent semantic analysis of WordNet: a vector for every word and synset, from glosses and broader words.

Deerwester et al., "Indexing by latent semantic analysis", 1990. A synset is a document of its own words, those of its
gloss, and those of the synsets above it.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from recipes.default_model.meanings import Meanings, unit
from recipes.default_model.wordnet import Synset, WordNet

WIDTH = 200
_WORD = re.compile(r"[a-z0-9][a-z0-9'-]*")
_OWN, _NEAR, _FAR = 3.0, 2.0, 1.0  # how much the synset's words, those above and those above these count
_RARE = 2  # a word that fewer synsets use says nothing


def analyse(wordnet: WordNet, width: int = WIDTH, seed: int = 0) -> Meanings:
    """All of WordNet; half a minute on a CPU core."""
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import TruncatedSVD

    keys = list(wordnet.synsets)
    documents = [_weights(wordnet, wordnet.synsets[key]) for key in keys]
    used = Counter(word for document in documents for word in document)
    place = {word: row for row, word in enumerate(sorted(w for w, count in used.items() if count >= _RARE))}
    rows, columns, values = [], [], []
    for row, document in enumerate(documents):
        for word, weight in document.items():
            if word in place:
                rows.append(row)
                columns.append(place[word])
                values.append((1 + np.log(weight)) * np.log(len(keys) / used[word]))
    matrix = csr_matrix((values, (rows, columns)), (len(keys), len(place)), np.float32)
    model = TruncatedSVD(min(width, len(place) - 1, len(keys) - 1), random_state=seed)
    synsets = model.fit_transform(matrix)
    words = model.components_.T * model.singular_values_
    return Meanings(unit(words), place, unit(synsets), {key: row for row, key in enumerate(keys)})


def _weights(wordnet: WordNet, synset: Synset) -> Counter[str]:
    found: Counter[str] = Counter()
    for word in _WORD.findall(synset.gloss.lower()):
        found[word] += 1
    above = [wordnet.synsets[key] for key in synset.broader]
    further = [wordnet.synsets[key] for one in above for key in one.broader]
    for weight, group in ((_OWN, [synset]), (_NEAR, above), (_FAR, further)):
        for one in group:
            for name in one.words:
                for word in {name.lower(), *_WORD.findall(name.lower())}:
                    found[word] += weight  # type: ignore[assignment]
    return found
