"""The page over a made-up gallery of 100,000 rows, in headless Chromium: elements and times.

    pip install playwright
    python -m benchmarks.server.large_page WORK [--rows 100000]

WORK keeps the gallery for the next run: links to 200 drawn pictures, with vectors drawn at random, and columns of few,
many and as many values as rows. Scrolls to places all over the gallery, by the scroll bar and by keys, in the gallery's
own order, sorted and filtered, reloads in the middle, and ends with 1 where another picture is shown than stands there,
or more elements are in the document than a few screens hold.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from benchmarks.server.load import server
from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import load_encoder
from image2sentence.gallery import Gallery
from image2sentence.gallery.records import Content, FileEntry

try:
    from playwright.sync_api import Page, expect, sync_playwright
except ModuleNotFoundError:
    sync_playwright = None  # `main` says so

DRAWN = 200
SIDE = 256
BATCH = 10_000
MOST_ELEMENTS = 1_500
SCREEN = {"width": 1280, "height": 900}


def make(work: Path, rows: int) -> Path:
    """The gallery, made where it is not there."""
    folder = work / f"gallery-{rows}"
    if folder.exists():
        return folder
    drawn = sorted((write_catalogue(work / "drawn", DRAWN, 1, SIDE) / "images").iterdir())
    pictures = work / f"pictures-{rows}"
    encoder, rng = load_encoder(), np.random.default_rng(0)
    vectors = rng.standard_normal((DRAWN, encoder.width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hashes = [hashlib.sha256(one.read_bytes()).digest() for one in drawn]
    contents = [Content(*pair) for pair in zip(hashes, [SIDE] * DRAWN, [SIDE] * DRAWN, vectors, strict=True)]
    with Gallery.create(folder, encoder.fingerprint, encoder.width) as gallery:
        gallery.add_columns(
            {"title": "text", "price": "number", "shop": "text", "added": "date", "kind": "text"}
        )
        root = gallery.add_root(pictures)
        for start in range(0, rows, BATCH):
            entries = [entry(pictures, drawn, hashes, row) for row in range(start, min(start + BATCH, rows))]
            gallery.commit(root, contents if not start else [], entries)
    return folder


def entry(pictures: Path, drawn: list[Path], hashes: list[bytes], row: int) -> FileEntry:
    """One row: a link to a drawn picture, in folders of a thousand."""
    name = f"{row // 1000:03}/{row:06}{drawn[0].suffix}"
    place = pictures / name
    place.parent.mkdir(parents=True, exist_ok=True)
    os.link(drawn[row % DRAWN], place)
    status, rng = place.stat(), random.Random(row)
    metadata = {
        "title": f"Product {row:06}",
        "price": rng.randrange(100, 100_000) / 100,
        "shop": f"Shop {rng.randrange(5_000):04}",
        "added": f"20{rng.randrange(10, 26)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}T00:00:00",
        "kind": rng.choice(["shirt", "skirt", "mug"]),
    }
    return FileEntry(name, status.st_size, status.st_mtime_ns, hashes[row % DRAWN], metadata=metadata)


def elements(page: Page) -> int:
    """Elements in the document; fails where they are more than a few screens hold."""
    count = int(page.evaluate("document.querySelectorAll('*').length"))
    assert count <= MOST_ELEMENTS, f"{count} elements in the document"
    return count


def in_sight(page: Page) -> list[tuple[int, str]]:
    """Place and name of the cards whose middle is in sight, once all of them are there."""
    found: list[tuple[int, str]] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        waiting, cards = page.evaluate("""() => {
          const seen = [...document.querySelectorAll("#results li")].filter((one) => {
            const { top, bottom } = one.getBoundingClientRect();
            return bottom > 0 && top < innerHeight;
          });
          const waiting = seen.filter((one) => one.classList.contains("skeleton")).length;
          return [waiting, seen.map((one) => [Number(one.dataset.place), one.querySelector(".name")?.textContent])];
        }""")
        if not waiting and cards:
            return [(place, name) for place, name in cards]
        page.wait_for_timeout(30)
    raise AssertionError(f"rows stay empty: {found}")


def timed(what: str, act: Callable[[], object], page: Page) -> None:
    """Print how long something takes until rows are in sight, and how many elements are there then."""
    start = time.perf_counter()
    act()
    cards = in_sight(page)
    spent = time.perf_counter() - start
    print(
        f"  {what:<44} {1000 * spent:7.0f} ms   {elements(page):5} elements   first in sight: {cards[0][1]}"
    )


def scrolled(page: Page, part: float) -> None:
    """As by the scroll bar."""
    page.evaluate("(part) => scrollTo(0, part * (document.documentElement.scrollHeight - innerHeight))", part)


def settled(page: Page) -> None:
    """Wait until no query is on its way."""
    page.wait_for_timeout(250)
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true", timeout=60_000)


def walk(page: Page, rows: int) -> None:
    """All that is promised of large galleries."""
    expect(page.locator("#status")).to_contain_text(f"{rows:,} pictures", timeout=60_000)
    for part in (0.25, 0.5, 0.999, 1.0, 0.1, 0.0):
        timed(f"to {100 * part:g} % by the scroll bar", lambda part=part: scrolled(page, part), page)
        wrong = [one for one in in_sight(page) if one[1] != f"Product {one[0]:06}"]
        assert not wrong, wrong
    scrolled(page, 0.5)
    place = in_sight(page)[0][0]
    assert abs(place - rows / 2) < rows / 50, place
    page.wait_for_timeout(500)
    timed("reload in the middle", lambda: (page.reload(), settled(page)), page)
    assert abs(in_sight(page)[0][0] - place) < 40, (in_sight(page)[0], place)
    page.locator("#results .open").nth(20).focus()
    for key in ["ArrowDown"] * 30 + ["ArrowRight"] * 3:
        page.keyboard.press(key)
    expect(page.locator("#results .open:focus")).to_have_count(1)
    elements(page)
    scrolled(page, 0)
    timed("sort by price", lambda: (page.select_option("#sort", "price"), settled(page)), page)
    timed("downwards", lambda: (page.locator("#sort-way").click(), settled(page)), page)
    page.locator("#filters summary", has_text="Shop").click()
    page.locator(".sought input").nth(1).fill("shop 42")
    expect(page.locator("#filters [open] label").first).to_contain_text("Shop 42")
    timed("filter by one of 5,000 values", lambda: (choose(page), settled(page)), page)
    assert page.locator("#results li").count() <= 60
    page.keyboard.press("Escape")
    page.locator("#clear-filters").click()
    settled(page)
    page.select_option("#sort", "")
    page.locator("#text").fill("a red shirt")
    settled(page)
    timed("to the 10,000th of a ranking", lambda: scrolled(page, 1.0), page)
    assert in_sight(page)[-1][0] == min(rows, 10_000) - 1


def choose(page: Page) -> None:
    """The first of the values that were found."""
    page.locator("#filters [open] label input").first.check()


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--rows", default=100_000, show_default=True)
@click.option("--chromium", default="/usr/bin/chromium", show_default=True)
def main(work: Path, rows: int, chromium: str) -> None:
    """Walk through a large gallery, which is kept in WORK."""
    if sync_playwright is None:
        raise click.ClickException("walking through the page needs: pip install playwright")
    gallery = make(work, rows)
    with server(gallery) as (port, _, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=SCREEN)
        page.on("pageerror", lambda error: print(f"  page error: {error}"))
        page.goto(f"http://localhost:{port}/")
        walk(page, rows)
        browser.close()
    print("all as expected")


if __name__ == "__main__":
    main()
