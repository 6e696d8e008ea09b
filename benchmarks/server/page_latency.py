"""How long the page takes from words to results, beside a bare request for the same, in turns in one browser.

    pip install playwright
    python -m benchmarks.server.page_latency GALLERY [--rounds 40]

For GALLERY that of `python -m benchmarks.server.large_page WORK --rows 5096` will do, whose pictures have titles. Each
turn asks for the same words three times: by a bare fetch of the search, on the page with titles counting, and without;
other words before each, so that no answer is remembered. Prints medians in milliseconds and the medians of the turns'
ratios, which hold on a busy machine too.
"""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import click

from benchmarks.server.load import COLOURS, PATTERNS
from benchmarks.server.process import server

try:
    from playwright.sync_api import sync_playwright
except ModuleNotFoundError:
    sync_playwright = None  # `main` says so

WARM_UP = 5
THINGS = ("shirt", "skirt", "mug", "jumper", "cap", "boot")
TURN = """async ([words, bare]) => {
  const form = new FormData();
  for (const [name, value] of Object.entries({ text: bare, balance: 0.5, k: 48, offset: 0 })) form.append(name, value);
  const page = async (text) => {
    document.getElementById("text").value = text;
    const results = document.getElementById("results");
    const start = performance.now();
    const done = new Promise((resolve) => {
      const seen = new MutationObserver(() => {
        if (results.hasAttribute("aria-busy")) return;
        seen.disconnect();
        resolve();
      });
      seen.observe(results, { attributeFilter: ["aria-busy"] });
    });
    document.getElementById("form").requestSubmit();
    await done;
    return performance.now() - start;
  };
  const fetched = async () => {
    const start = performance.now();
    await (await fetch("v1/search", { method: "POST", body: form })).json();
    return performance.now() - start;
  };
  const titles = async (on) => {
    const box = document.getElementById("titles");
    if (box.checked === on) return;
    box.click();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const busy = () => document.getElementById("results").hasAttribute("aria-busy");
    while (busy()) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  const spent = [await fetched()];
  await titles(true);
  spent.push(await page(words[0]));
  await titles(false);
  spent.push(await page(words[1]));
  await titles(true);
  return spent;
}"""


def words(rng: random.Random) -> str:
    """Words that a picture's title may have, and a number that few have."""
    thing, number = rng.choice(THINGS), rng.randrange(5_000)
    return f"a {rng.choice(COLOURS)} {thing}{rng.choice(PATTERNS)} product {number:06}"


@click.command()
@click.argument("gallery", type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", default=40, show_default=True)
@click.option("--chromium", default="/usr/bin/chromium", show_default=True)
def main(gallery: Path, rounds: int, chromium: str) -> None:
    """Measure the page over GALLERY."""
    if sync_playwright is None:
        raise click.ClickException("measuring the page needs: pip install playwright")
    rng = random.Random(0)
    with server(gallery) as (port, _, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"http://localhost:{port}/")
        page.locator("#text").fill("a shirt")
        page.wait_for_selector("#results .score", timeout=60_000)
        turns = [
            page.evaluate(TURN, [[words(rng), words(rng)], words(rng)]) for _ in range(WARM_UP + rounds)
        ][WARM_UP:]
        browser.close()
    for name, place in (("a bare request", 0), ("the page, titles count", 1), ("the page, titles do not", 2)):
        spent = sorted(turn[place] for turn in turns)
        print(f"{name:24} {statistics.median(spent):7.1f} ms   best tenth {spent[len(spent) // 10]:6.1f} ms")
    page_ratio = statistics.median(turn[1] / turn[0] for turn in turns)
    titles_ratio = statistics.median(turn[1] / turn[2] for turn in turns)
    print(f"page / bare request {page_ratio:.2f}   titles / without {titles_ratio:.2f}")


if __name__ == "__main__":
    main()
