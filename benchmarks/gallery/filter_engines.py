"""Filters by the column cache, by pyarrow and by DuckDB: seconds, memory and answers, interleaved in one process.

    python -m benchmarks.gallery.filter_engines [--rows 20000 200000] [--repeats 15]

Needs `pip install duckdb pyarrow`. Loading is from values in memory, as the gallery gives them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow
import pyarrow.compute as pc

from image2sentence.gallery.filters.in_memory import SortedColumn, positions
from image2sentence.gallery.filters.language import parse_filter

COLUMNS = {"title": "text", "maker": "text", "price": "number", "sold": "boolean"}
FILTERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "range": (
        "price >= 20 and price < 25",
        lambda t: pc.and_(pc.greater_equal(t["price"], 20), pc.less(t["price"], 25)),
    ),
    "equal": ("maker = 'm17'", lambda t: pc.equal(t["maker"], "m17")),
    "list": (
        f"maker in ({', '.join(repr(f'm{n}') for n in range(0, 400, 2))})",
        lambda t: pc.is_in(t["maker"], value_set=pyarrow.array([f"m{n}" for n in range(0, 400, 2)])),
    ),
    "like": ("title like '%red%7%'", lambda t: pc.match_like(t["title"], "%red%7%")),
    "mixed": (
        "(maker = 'm17' or price < 5) and title like '%blue%' and not sold",
        lambda t: pc.and_kleene(
            pc.and_kleene(
                pc.or_kleene(pc.equal(t["maker"], "m17"), pc.less(t["price"], 5)),
                pc.match_like(t["title"], "%blue%"),
            ),
            pc.invert(t["sold"]),
        ),
    ),
}


def drawn(rows: int) -> dict[str, list[Any]]:
    """Values by column, a tenth of them missing."""
    draw = random.Random(1)
    makers: dict[str, Callable[[int], Any]] = {
        "title": lambda n: f"{draw.choice(['red', 'blue', 'green'])} striped shirt number {n} for every day",
        "maker": lambda _: f"m{draw.randrange(500)}",
        "price": lambda _: round(draw.random() * 100, 2),
        "sold": lambda _: draw.random() < 0.5,
    }
    return {
        name: [None if draw.random() < 0.1 else make(number) for number in range(rows)]
        for name, make in makers.items()
    }


def engines(values: dict[str, list[Any]]) -> dict[str, Callable[[], Callable[[str], np.ndarray[Any, Any]]]]:
    """For each engine what loads the columns and gives what answers a filter by name."""
    rows = len(values["title"])

    def ours() -> Callable[[str], Any]:
        columns = {}
        for name, column in values.items():
            there = np.flatnonzero([value is not None for value in column])
            columns[name] = SortedColumn.of(there, [column[place] for place in there], rows)
        return lambda name: positions(
            parse_filter(FILTERS[name][0]).checked(COLUMNS).condition, columns.__getitem__, rows
        )

    def arrow() -> Callable[[str], Any]:
        table = pyarrow.table(values)
        return lambda name: np.flatnonzero(FILTERS[name][1](table).fill_null(False).to_numpy())

    def duck() -> Callable[[str], Any]:
        connection = duckdb.connect(config={"threads": 1})
        connection.register("given", pyarrow.table({"id": range(rows), **values}))
        connection.execute("CREATE TABLE pictures AS SELECT * FROM given")
        return lambda name: connection.execute(
            f"SELECT id FROM pictures WHERE {FILTERS[name][0]} ORDER BY id"
        ).fetchnumpy()["id"]

    return {"column cache": ours, "pyarrow": arrow, "DuckDB": duck}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--repeats", type=int, default=15)
    asked = parser.parse_args()
    pyarrow.set_cpu_count(1)
    for rows in asked.rows:
        values = drawn(rows)
        answer, load, memory = {}, {}, {}
        for name, make in engines(values).items():
            before = _resident()
            began = time.perf_counter()
            answer[name] = make()
            load[name], memory[name] = time.perf_counter() - began, (_resident() - before) / 2**20
        print(
            f"{rows:,} rows",
            *(f"{one}: load {load[one]:.2f} s, {memory[one]:+.0f} MiB" for one in answer),
            sep="; ",
        )
        for filter_name in FILTERS:
            taken: dict[str, list[float]] = {one: [] for one in answer}
            found = {}
            for _ in range(asked.repeats):
                for one, ask in answer.items():
                    began = time.perf_counter()
                    found[one] = ask(filter_name)
                    taken[one].append(time.perf_counter() - began)
            same = all(np.array_equal(found[one], found["column cache"]) for one in found)
            medians = ", ".join(
                f"{one} {1e3 * statistics.median(seconds):.2f} ms" for one, seconds in taken.items()
            )
            print(f"  {filter_name}: {medians}; {len(found['column cache']):,} found, the same: {same}")


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


if __name__ == "__main__":
    main()
