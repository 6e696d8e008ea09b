"""The page used as a person would, in headless Chromium over the drawn catalogue; each step is checked.

    pip install playwright; npm install --ignore-scripts onnxruntime-web
    python benchmarks/page_walk.py WORK --runtime node_modules/onnxruntime-web/dist [--screenshots docs/images]

Draws and indexes the catalogue into WORK (kept for the next run), starts the server, drops a photograph of a product
that the gallery does not hold, types words, follows two more steps, looks at the attention overlay, switches a
pseudo-word off, filters, and asks again on the device. Ends with 1 where something is not as a person would expect.
Screenshots are made at desktop and phone width, light and dark.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.server_load import server
from image2sentence.catalogue import write_catalogue

CATALOGUE = (720, 1)
OUTSIDE = (60, 9)
PHOTO = "images/00039.jpg"  # a green jumper with a round neck
STEPS = (
    ("but purple", r"purple jumper with a round neck"),
    ("with a striped pattern", r"purple and \w+ striped jumper.*"),
    ("as a jacket", r"purple and \w+ striped jacket.*"),
)
DESKTOP, PHONE = {"width": 1280, "height": 1000}, {"width": 390, "height": 844}
DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  document.body.dispatchEvent(new DragEvent("dragover", { dataTransfer, bubbles: true }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
}"""
HEAT = """() => {
  const canvas = document.getElementById("heat");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const reds = data.filter((_, place) => place % 4 === 0);
  return [Number(getComputedStyle(canvas).opacity), Math.max(...reds) - Math.min(...reds)];
}"""


class Walk:
    """A person at the page."""

    def __init__(self, page: Page, shots: Path | None) -> None:
        self.page = page
        self._shots = shots

    def shot(self, name: str) -> None:
        """Keep what can be seen, as NAME.png."""
        if self._shots is None:
            return
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(400)
        self.page.screenshot(path=self._shots / f"{name}.png")

    def settled(self) -> None:
        """Wait until no query is on its way."""
        self.page.wait_for_timeout(250)
        expect(self.page.locator("#results")).not_to_have_attribute("aria-busy", "true", timeout=30_000)

    def drop(self, photo: Path) -> None:
        """Drop a picture file on the page."""
        self.page.evaluate(DROP, [photo.name, base64.b64encode(photo.read_bytes()).decode()])
        expect(self.page.locator("#shown")).to_be_visible()
        self.settled()

    def type(self, words: str) -> None:
        """Type words key by key."""
        self.page.locator("#text").press_sequentially(words, delay=20)
        self.settled()

    def found(self, count: int = 10) -> list[str]:
        """Names of the first results."""
        return self.page.locator("#results .name").all_inner_texts()[:count]

    def go_on(self) -> None:
        """Take the first result as the next reference."""
        self.page.locator("#results button").first.click()
        self.settled()


def index(work: Path) -> tuple[Path, Path]:
    """The gallery, and a photograph that it does not hold."""
    catalogue = write_catalogue(work / "catalogue", *CATALOGUE)
    outside = write_catalogue(work / "outside", *OUTSIDE, 512)
    gallery = work / "gallery"
    if not gallery.exists():
        command = [
            "index",
            str(catalogue),
            "--gallery",
            str(gallery),
            "--metadata",
            str(catalogue / "attributes.csv"),
        ]
        subprocess.run([sys.executable, "-m", "image2sentence", *command], check=True)
    return gallery, outside / PHOTO


def first_is(walk: Walk, expected: str) -> None:
    """The first result is the product that was asked for."""
    first = walk.found(1)[0]
    assert re.fullmatch(expected, first), f"expected {expected} first, found {first}"
    print(f"  found first: {first}")


def three_steps(walk: Walk, photo: Path) -> None:
    """Drop, type, and go on from the first result twice."""
    walk.shot("page-start")
    walk.drop(photo)
    for number, (words, expected) in enumerate(STEPS):
        if number:
            walk.go_on()
        walk.type(words)
        first_is(walk, expected)
        if number == 0:
            walk.shot("page-desktop")
    assert walk.page.locator("#trail li").count() == len(STEPS)


def attention(walk: Walk) -> None:
    """Pointing at a word of the sentence lays its map over the picture; words near it are named."""
    words = walk.page.locator("#pseudo .word button")
    assert words.count() == 4
    words.last.hover()
    walk.page.wait_for_timeout(400)
    opacity, contrast = walk.page.evaluate(HEAT)
    assert min(opacity, contrast / 50) >= 1, f"no overlay: opacity {opacity}, contrast {contrast}"
    print(f"  words of the sentence: {[' '.join(text.split()) for text in words.all_inner_texts()]}")
    walk.shot("page-attention")


def switched_off(walk: Walk) -> None:
    """Switching a word of the sentence off changes the ranking, and switching it on again brings it back."""
    before = walk.found()
    switch = walk.page.locator("#pseudo [role=switch]").last
    switch.uncheck()
    walk.settled()
    assert walk.found() != before
    assert "muted=4" in walk.page.url
    switch.check()
    walk.settled()
    assert walk.found() == before


def filtered(walk: Walk) -> None:
    """A filter keeps to what meets it, and a shared address brings the same page."""
    walk.page.locator("#filters summary", has_text="Closure").click()
    walk.page.locator("#filters [open] label", has_text="zip").click()
    walk.settled()
    walk.page.locator("#not").fill("dots")
    walk.page.locator("#not").press("Enter")
    walk.settled()
    names = walk.found()
    assert names
    assert all("zip" in name for name in names), names
    walk.shot("page-filters")
    other = Walk(walk.page.context.new_page(), None)
    other.page.goto(walk.page.url)
    other.settled()
    assert other.found() == names
    assert other.page.locator("#text").input_value() == STEPS[-1][0]
    other.page.close()


def on_device(walk: Walk, address: str, photo: Path) -> None:
    """The same picture and words give the same ten, encoded here or there."""
    walk.page.goto(address)
    walk.settled()
    walk.drop(photo)
    walk.type(STEPS[0][0])
    there = walk.found()
    walk.page.locator(".device .switch").click()
    expect(walk.page.locator("#costs")).to_be_visible(timeout=60_000)
    walk.settled()
    assert walk.found() == there, (walk.found(), there)
    walk.page.locator("#text").fill("but orange")
    walk.settled()
    print("  same ten on the device; first query, last query, sent in all:")
    for row in walk.page.locator("#costs tbody tr").all():
        print(f"    {' · '.join(row.inner_text().split(chr(9)))}")
    walk.shot("page-device")


def opened(browser: Browser, address: str, **options: Any) -> Page:
    """A page of its own context, which fails on errors in the console."""
    page = browser.new_context(**options).new_page()
    page.on("pageerror", lambda error: print(f"  page error: {error}"))
    page.on("console", lambda line: print(f"  console: {line.text}") if line.type == "error" else None)
    page.goto(address)
    return page


def other_looks(browser: Browser, address: str, photo: Path, shots: Path | None) -> None:
    """Phone width, and the dark theme of both widths."""
    looks = {
        "page-dark": {"viewport": DESKTOP, "color_scheme": "dark"},
        "page-phone": {"viewport": PHONE, "has_touch": True, "device_scale_factor": 2},
        "page-phone-dark": {
            "viewport": PHONE,
            "has_touch": True,
            "device_scale_factor": 2,
            "color_scheme": "dark",
        },
    }
    for name, options in looks.items():
        page = opened(browser, address, **options)
        walk = Walk(page, shots)
        walk.settled()
        walk.drop(photo)
        walk.type(STEPS[0][0])
        first_is(walk, STEPS[0][1])
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, f"{name}: the page is {over} pixels wider than the screen"
        walk.shot(name)
        page.context.close()


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--runtime", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--screenshots", type=click.Path(path_type=Path))
@click.option("--chromium", default="/usr/bin/chromium", show_default=True)
def main(work: Path, runtime: Path, screenshots: Path | None, chromium: str) -> None:
    """Walk through the page, with its catalogue and gallery in WORK."""
    gallery, photo = index(work)
    arguments = ["--no-sandbox", "--disable-gpu"]
    with server(gallery, "--browser-runtime", str(runtime)) as (port, _, _), sync_playwright() as playwright:
        address = f"http://localhost:{port}/"
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        walk = Walk(opened(browser, address, viewport=DESKTOP), screenshots)
        walk.settled()
        for stage in (three_steps, attention, switched_off, filtered, on_device, other_looks):
            print(stage.__name__)
            if stage is three_steps:
                three_steps(walk, photo)
            elif stage is on_device:
                on_device(walk, address, photo)
            elif stage is other_looks:
                other_looks(browser, address, photo, screenshots)
            else:
                stage(walk)
        browser.close()
    print("all as expected")


if __name__ == "__main__":
    main()
