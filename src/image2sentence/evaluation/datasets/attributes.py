"""Attribute-change benchmarks from any labelled catalogue.

A query shows a picture and asks for other values of one or more attributes, "in red"; right answers are all
pictures of the gallery that have those values and agree with the reference in every kept attribute.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from image2sentence.errors import ConfigError, DataError
from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue, load_catalogue
from image2sentence.evaluation.protocol import Benchmark, Protocol, Query

__all__ = [
    "AttributeBenchmark",
    "Catalogue",
    "attribute_queries",
    "caption",
    "hard_negatives",
    "hold_out",
    "load_catalogue",
    "modifier",
    "reported_and_tuning",
]

Values = tuple[str, ...]
Rows = Sequence[Mapping[str, str]]

RECALL_AT = (1, 5, 10, 50)
MAP_AT = (10,)
TUNING_REFERENCES = 1000
FALLBACK_TEMPLATE = "with {attribute} {value}"
TEMPLATES = {
    "colour": "in {value}",
    "color": "in {value}",
    "pattern": "with a {value} pattern",
    "type": "as a {value}",
    "category": "as a {value}",
    "sleeve": "with {value} sleeves",
    "length": "in {value} length",
    "neckline": "with a {value} neckline",
    "background": "on a {value} background",
    "material": "made of {value}",
    "season": "for {value}",
    "usage": "for {value} use",
    "gender": "for {value}",
    "gender_word": "as a {value}",
    "skin_tone": "with {value}",
    "style": "in {value} style",
}


@dataclass(frozen=True)
class AttributeBenchmark(Benchmark):
    """A benchmark made from labels, with the counts that a report owes its reader."""

    change: Values = ()
    keep: Values = ()
    references: int = 0
    """Pictures that could have been a reference."""
    without_query: int = 0
    """References for which the gallery holds no right answer to any change; they are counted, not hidden."""


def attribute_queries(
    catalogue: Catalogue,
    change: str | Sequence[str],
    keep: str | Sequence[str],
    split: str | None = None,
    queries_per_image: int = 1,
    seed: int = 0,
    template: str | None = None,
    *,
    remove_reference: bool = True,
    empty_targets: bool = False,
    caption_template: str | None = None,
    references: Collection[str] | None = None,
) -> AttributeBenchmark:
    """Queries that change `change` and keep `keep` (column names, as a list or "colour,pattern").

    The gallery is every picture of `split` (None: of the catalogue). Each picture of `references` (None: of
    the gallery) is asked `queries_per_image` different target values, or all it has if fewer, drawn with
    `seed`; the draw for a picture depends on no other picture's. Every changed attribute differs from the
    reference's, and at least one right answer exists. The reference is never right; by default it is also
    taken out of the ranking (`remove_reference`). An empty cell is a value like others to keep, but never
    asked for unless `empty_targets`.

    `template` words the modifier, see `modifier`; `caption_template` the full text of the right answer, see
    `caption`. Raises DataError for unknown columns or no query at all, ConfigError for settings that cannot
    be.
    """
    changed, kept = _columns(catalogue, change, keep)
    if queries_per_image < 1:
        raise ConfigError(f"queries per image should be at least 1, got {queries_per_image}")
    asked = _Question(changed, kept, queries_per_image, seed, empty_targets, template, caption_template)
    rows = catalogue.of_split(split)
    asking = [row for row in rows if references is None or row[FILE_COLUMN] in references]
    found = _ask(asked, rows, asking)
    without = sum(not own for own in found)
    if without == len(asking):
        raise DataError(
            f"{catalogue.table}: no picture of split {split or 'all'} has a right answer when "
            f"{', '.join(changed)} changes and {', '.join(kept) or 'nothing'} is kept; "
            "keep fewer attributes or use more pictures"
        )
    return AttributeBenchmark(
        name=f"attributes/{catalogue.folder.resolve().name}",
        split=split or "all",
        queries=tuple(query for own in found for query in own),
        protocol=Protocol("removed" if remove_reference else "kept", recall_at=RECALL_AT, map_at=MAP_AT),
        gallery_ids=tuple(row[FILE_COLUMN] for row in rows),
        images={row[FILE_COLUMN]: (row[FILE_COLUMN],) for row in rows},
        options={
            **asked.options(),
            "reference": "removed from the ranking" if remove_reference else "kept in the ranking",
            "references without a query": f"{without} of {len(asking)}",
        },
        change=changed,
        keep=kept,
        references=len(asking),
        without_query=without,
    )


def modifier(wanted: Mapping[str, str], template: str | None = None) -> str:
    """The words that ask for `wanted` (attribute -> value): {"colour": "Red"} -> "in red".

    A template with `{value}` (and `{attribute}`) words each attribute, joined by " and "; one with the
    attributes' own names, "in {colour} with {pattern}", words them together. None: the table `TEMPLATES`, by
    attribute. Values are written lower-case, underscores as spaces.
    """
    if template is not None and "{value}" not in template:
        return _fill_all(template, wanted)
    parts = [_fill_one(_template_of(name, template), name, value) for name, value in wanted.items()]
    return " and ".join(parts)


def caption(row: Mapping[str, str], attributes: Sequence[str], template: str | None = None) -> str:
    """Full text of a picture with these labels: its values in the order of `attributes`, empty ones left out.

    A template names attributes in braces instead: "{gender} {type} in {colour}".
    """
    if template is not None:
        return _fill_all(template, {name: row[name] for name in attributes})
    return " ".join(_words(row[name]) for name in attributes if row[name])


def hard_negatives(catalogue: Catalogue, benchmark: AttributeBenchmark) -> list[tuple[str, ...]]:
    """For each query the pictures of its gallery that keep everything and lack the change, the reference apart."""
    rows = {row[FILE_COLUMN]: row for row in catalogue.of_split(None)}
    groups: defaultdict[Values, list[str]] = defaultdict(list)
    for name in benchmark.needed_ids():
        groups[_pick(rows[name], benchmark.keep)].append(name)
    found = []
    for query in benchmark.queries:
        out = {query.reference, *query.answers}
        own = groups[_pick(rows[query.reference], benchmark.keep)]
        found.append(tuple(name for name in own if name not in out))
    return found


def similar_references(
    catalogue: Catalogue, benchmark: AttributeBenchmark, count: int
) -> list[tuple[str, ...]]:
    """For each query up to `count` other pictures of its gallery with the reference's kept and changed values.

    They come in an order of their own for each reference, which depends on names alone.
    """
    rows = {row[FILE_COLUMN]: row for row in catalogue.of_split(None)}
    names = (*benchmark.keep, *benchmark.change)
    groups: defaultdict[Values, list[str]] = defaultdict(list)
    for name in benchmark.needed_ids():
        groups[_pick(rows[name], names)].append(name)
    found = []
    for query in benchmark.queries:
        others = [name for name in groups[_pick(rows[query.reference], names)] if name != query.reference]
        random.Random(f"similar/{query.reference}").shuffle(others)
        found.append(tuple(others[:count]))
    return found


def hold_out(
    benchmark: AttributeBenchmark, count: int, seed: int = 0
) -> tuple[AttributeBenchmark, AttributeBenchmark]:
    """The benchmark without `count` of its references (at most half), and the benchmark of those alone.

    Both search the same gallery, and no picture asks in both. The draw depends on `seed`.
    """
    names = sorted({query.reference for query in benchmark.queries})
    if len(names) < 2:
        raise DataError(f"{benchmark.name}: one reference only, which leaves none to tune the sum on")
    held = frozenset(random.Random(f"held out/{seed}").sample(names, min(count, len(names) // 2)))
    return (
        _only(benchmark, [query for query in benchmark.queries if query.reference not in held]),
        _only(benchmark, [query for query in benchmark.queries if query.reference in held]),
    )


def reported_and_tuning(
    catalogue: Catalogue,
    change: str | Sequence[str],
    keep: str | Sequence[str],
    split: str | None = None,
    seed: int = 0,
    **settings: object,
) -> tuple[AttributeBenchmark, AttributeBenchmark]:
    """The benchmark to report, and another on which the weight of the image + text sum is chosen.

    The weight is chosen on at most `TUNING_REFERENCES` references, drawn with `seed`: of the split `train`
    where the catalogue has one and another is reported, otherwise of the reported pictures (at most half of
    them), which are then left out of the reported figures. `settings` are those of `attribute_queries`.
    """
    build = _Builder(catalogue, change, keep, seed, settings)
    if split is None or split == "train" or "train" not in catalogue.splits():
        return hold_out(build(split, None), TUNING_REFERENCES, seed)
    files = [row[FILE_COLUMN] for row in catalogue.of_split("train")]
    sample = random.Random(f"tuning/{seed}").sample(files, min(len(files), TUNING_REFERENCES))
    return build(split, None), build("train", frozenset(sample))


@dataclass(frozen=True)
class _Builder:
    catalogue: Catalogue
    change: str | Sequence[str]
    keep: str | Sequence[str]
    seed: int
    settings: Mapping[str, object]

    def __call__(self, split: str | None, references: frozenset[str] | None) -> AttributeBenchmark:
        return attribute_queries(
            self.catalogue,
            self.change,
            self.keep,
            split,
            seed=self.seed,
            references=references,
            **self.settings,  # type: ignore[arg-type]
        )


def _columns(
    catalogue: Catalogue, change: str | Sequence[str], keep: str | Sequence[str]
) -> tuple[Values, Values]:
    changed, kept = _names(change), _names(keep)
    if not changed:
        raise ConfigError("name at least one attribute to change")
    for name in (*changed, *kept):
        if name == FILE_COLUMN or name not in catalogue.columns:
            others = ", ".join(column for column in catalogue.columns if column != FILE_COLUMN)
            raise DataError(f"{catalogue.table} has no attribute {name!r}; it has {others}")
    if len({*changed, *kept}) != len(changed) + len(kept):
        raise ConfigError(f"an attribute is named twice: change {', '.join(changed)}; keep {', '.join(kept)}")
    return changed, kept


def _names(value: str | Sequence[str]) -> Values:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() for part in parts if part.strip())


def _pick(row: Mapping[str, str], names: Values) -> Values:
    return tuple(row[name] for name in names)


def _by_values(rows: Rows, changed: Values, kept: Values) -> dict[Values, dict[Values, list[str]]]:
    """Kept values -> changed values -> the pictures that have both, in gallery order."""
    groups: defaultdict[Values, defaultdict[Values, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[_pick(row, kept)][_pick(row, changed)].append(row[FILE_COLUMN])
    return {key: dict(group) for key, group in groups.items()}


@dataclass(frozen=True)
class _Question:
    """What is asked of every reference."""

    changed: Values
    kept: Values
    per_image: int
    seed: int
    empty_targets: bool
    template: str | None
    caption_template: str | None

    def options(self) -> dict[str, str]:
        shown = self.template or " and ".join(_template_of(name, None) for name in self.changed)
        names = [*self.changed, *self.kept]
        return {
            "change": ", ".join(self.changed),
            "keep": ", ".join(self.kept),
            "modifier template": shown,
            "full text": self.caption_template or " ".join(f"{{{name}}}" for name in names),
            "queries per image": str(self.per_image),
            "seed": str(self.seed),
        }

    def queries(self, row: Mapping[str, str], answers: Mapping[Values, list[str]]) -> list[Query]:
        """The queries of one reference; `answers`: changed values -> pictures that keep what it keeps."""
        targets = self._targets(_pick(row, self.changed), answers)
        drawn = random.Random(f"{self.seed}/{row[FILE_COLUMN]}").sample(
            targets, min(self.per_image, len(targets))
        )
        return [self._query(row, target, answers[target]) for target in drawn]

    def _targets(self, own: Values, answers: Mapping[Values, list[str]]) -> list[Values]:
        """Values to ask for: each differs from the reference's own, and some picture has them all."""

        def asks(target: Values) -> bool:
            return all(
                new != old and bool(new or self.empty_targets) for new, old in zip(target, own, strict=True)
            )

        return sorted(target for target in answers if asks(target))

    def _query(self, row: Mapping[str, str], target: Values, answers: list[str]) -> Query:
        wanted = dict(zip(self.changed, target, strict=True))
        asked = ",".join(f"{name}={value}" for name, value in wanted.items())
        text = modifier(wanted, self.template)
        full = caption({**row, **wanted}, [*self.changed, *self.kept], self.caption_template)
        return Query(f"{row[FILE_COLUMN]}|{asked}", row[FILE_COLUMN], (text,), tuple(answers), caption=full)


def _ask(asked: _Question, rows: Rows, asking: Rows) -> list[list[Query]]:
    groups = _by_values(rows, asked.changed, asked.kept)
    return [asked.queries(row, groups[_pick(row, asked.kept)]) for row in asking]


def _template_of(attribute: str, template: str | None) -> str:
    return template if template is not None else TEMPLATES.get(attribute, FALLBACK_TEMPLATE)


def _words(value: str) -> str:
    return value.replace("_", " ").lower()


def _fill_one(template: str, attribute: str, value: str) -> str:
    return template.replace("{attribute}", _words(attribute)).replace("{value}", _words(value))


def _fill_all(template: str, values: Mapping[str, str]) -> str:
    unused = [name for name in values if f"{{{name}}}" not in template]
    if unused:
        raise ConfigError(f"template {template!r} should name {', '.join(f'{{{name}}}' for name in unused)}")
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", _words(value))
    return " ".join(template.split())


def _only(benchmark: AttributeBenchmark, queries: list[Query]) -> AttributeBenchmark:
    return replace(benchmark, queries=tuple(queries))
