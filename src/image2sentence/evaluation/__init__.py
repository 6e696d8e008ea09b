"""Benchmarks of composed image retrieval: loaders, protocols, metrics and reports."""

from image2sentence.evaluation.datasets.registry import DATASETS, load
from image2sentence.evaluation.metrics import Scores, bootstrap_interval, paired_difference
from image2sentence.evaluation.protocol import Benchmark, Protocol, Query
from image2sentence.evaluation.ranking import score, score_features

__all__ = [
    "DATASETS",
    "Benchmark",
    "Protocol",
    "Query",
    "Scores",
    "bootstrap_interval",
    "load",
    "paired_difference",
    "score",
    "score_features",
]
