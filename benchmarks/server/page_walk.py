"""The page used as a person would, in headless Chromium and Firefox over the drawn catalogue; each step is checked.

    pip install playwright==1.58.0; npm install --ignore-scripts onnxruntime-web axe-core
    python -m benchmarks.server.page_walk WORK --runtime node_modules/onnxruntime-web/dist \\
        --axe node_modules/axe-core/axe.min.js --screenshots docs/images

Draws the catalogue into WORK (kept for the next run) and indexes it, once from the page of a server without a gallery.
Starts the server, drops a photograph of a product
that the gallery does not hold, types words, follows two more steps, looks at the attention overlay, switches a
pseudo-word off, filters, asks again on the device, goes through it with the keyboard alone, and lets axe-core look for
what a screen reader could not use. Ends with 1 where something is not as a person would expect. Screenshots are made
at desktop and phone width, light and dark. In Firefox (`--firefox`) as in Chromium, without what only Chromium's tools
do: a slow link and touch.
"""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from PIL import Image

from benchmarks.server.process import server
from image2sentence.catalogue import write_catalogue

try:
    from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

    from benchmarks.server.page_index_walk import first_run, shown, stopped_and_gone_on
    from benchmarks.server.page_odd_walk import odd_titles
    from benchmarks.server.page_references_walk import HEAT, by_address, several_references
except ModuleNotFoundError:
    sync_playwright = None  # `main` says so

CATALOGUE = (720, 1)
OUTSIDE = (60, 9)
NEW = (400, 4)
PHOTO = "images/00039.jpg"  # a green jumper with a round neck
STEPS = (
    ("but purple", r"purple jumper with a round neck"),
    ("as a skirt", r"knee-length purple skirt"),
    ("with dots", r"short purple and white dotted skirt"),
)
DESKTOP, PHONE = {"width": 1280, "height": 1000}, {"width": 390, "height": 844}
DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  document.body.dispatchEvent(new DragEvent("dragover", { dataTransfer, bubbles: true }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
}"""
PATIENCE = 30_000
"""Milliseconds that something expected may take, on a machine that has other work too."""

DRAG = """([source, target]) => {
  const dataTransfer = new DataTransfer();
  const [from, to] = [source, target].map((one) => document.querySelector(one));
  for (const [element, kind] of [[from, "dragstart"], [to, "dragover"], [to, "drop"], [from, "dragend"]])
    element.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
}"""
COUNT_FILES = """() => {
  const send = window.fetch;
  window.filesSent = 0;
  window.fetch = (address, options) => {
    const parts = options?.body instanceof FormData ? [...options.body.values()] : [];
    window.filesSent += parts.filter((part) => part instanceof File).length;
    return send(address, options);
  };
}"""


class Walk:
    """A person at the page."""

    def __init__(self, page: Page, shots: Path | None) -> None:
        self.page = page
        self._shots = shots

    def shot(self, name: str) -> None:
        """Keep what can be seen, as NAME.jpg."""
        if self._shots is None:
            return
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(400)
        seen = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        self._shots.mkdir(parents=True, exist_ok=True)
        seen.save(self._shots / f"{name}.jpg", quality=88, subsampling=0, optimize=True)

    def settled(self) -> None:
        """Wait until no query is on its way."""
        self.page.wait_for_timeout(250)
        expect(self.page.locator("#results")).not_to_have_attribute("aria-busy", "true", timeout=30_000)

    def is_at(self, place: str) -> None:
        """The keyboard is there; whether or not the browser's window is the one in front, which Firefox's is not."""
        self.page.wait_for_function("(place) => document.activeElement.matches(place)", arg=place)

    def back(self) -> None:
        """The browser's Back; not Playwright's, which in Firefox waits for a page to load."""
        self.page.evaluate("history.back()")
        self.page.wait_for_timeout(100)

    def drop(self, photo: Path) -> None:
        """Drop a picture file on the page."""
        self.page.evaluate(DROP, [photo.name, base64.b64encode(photo.read_bytes()).decode()])
        expect(self.page.locator("#shown")).to_be_visible()
        self.settled()

    def saved(self, button: str) -> tuple[str, Path] | None:
        """Name and file that a button lets the browser save; None in Firefox, whose driver tells of none."""
        if self.page.context.browser is None or self.page.context.browser.browser_type.name == "firefox":
            self.page.locator(button).click()
            return None
        with self.page.expect_download() as download:
            self.page.locator(button).click()
        return download.value.suggested_filename, Path(download.value.path())

    def drag(self, source: str, target: str) -> None:
        """Drag one element onto another; by events, as Firefox makes none of a driver's pointer."""
        self.page.evaluate(DRAG, [source, target])
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
        self.page.locator("#results .use").first.click()
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


def others(photo: Path) -> list[Path]:
    """The photograph, and two more that the gallery does not hold."""
    return [photo, *(one for one in sorted(photo.parent.iterdir()) if one != photo)][:3]


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
    """Back along the trail: pointing at a word lays its map over the picture; what it adds is named."""
    walk.page.locator("#trail button").first.click()
    walk.settled()
    walk.page.locator("#closer summary").click()
    words = walk.page.locator("#pseudo .word > button")
    expect(words).to_have_count(4)
    words.first.hover()
    walk.page.wait_for_timeout(400)
    opacity, contrast = walk.page.evaluate(HEAT)
    assert min(opacity, contrast / 50) >= 1, f"no overlay: opacity {opacity}, contrast {contrast}"
    print(f"  words of the sentence: {[' '.join(text.split()) for text in words.all_inner_texts()]}")
    walk.shot("page-attention")
    walk.back()
    walk.settled()
    assert walk.page.locator("#text").input_value() == STEPS[-1][0], "the back button leads to another step"
    expect(walk.page.locator("#pseudo .word > button")).to_have_count(4)


def by_keyboard(walk: Walk) -> None:
    """Words, a result, and the way on from it without a pointer; what changes is said to those who do not see it."""
    page = walk.page
    page.keyboard.press("Tab")
    page.keyboard.press("/")
    walk.is_at("#text")
    page.keyboard.type("a green umbrella")
    walk.settled()
    expect(page.locator("#said")).to_have_text(re.compile("720 pictures, first: .*umbrella"))
    focused = []
    while "result 1," not in (name := focused_name(page)):
        page.keyboard.press("Tab")
        assert len(focused) < 30, f"the results are not reached: {focused}"
        focused.append(name)
    page.keyboard.press("ArrowRight")
    assert "result 2," in focused_name(page)
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#detail-place")).to_contain_text("Result 3 of 720")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    assert "result 3," in focused_name(page)
    page.keyboard.press("Enter")
    assert focused_name(page) == "use as reference"
    page.keyboard.press("Enter")
    walk.settled()
    assert page.evaluate("document.activeElement.id") in ("text", "title")  # the title where fingers type
    assert page.locator("#trail li").count() == 2
    print(f"  {len(focused)} stops from the words to the first result, all of them named")


def focused_name(page: Page) -> str:
    """What a screen reader calls the element that has the focus, in lower case; fails where it has no name."""
    name = page.evaluate("""() => {
      const { ariaLabel, labels, textContent } = document.activeElement;
      return (ariaLabel || [...(labels ?? [])].map((one) => one.textContent).join(" ") || textContent).trim();
    }""")
    assert name, page.evaluate("document.activeElement.outerHTML")
    return str(name).lower()


def accessible(page: Page, axe: Path | None) -> None:
    """The rules of axe-core (labels, roles, contrast ...) find nothing."""
    if axe is None:
        return
    page.wait_for_timeout(700)
    page.evaluate(axe.read_text())
    found = page.evaluate("axe.run()")["violations"]
    told = [
        f"{one['id']}: {one['help']}: {[node['html'][:90] for node in one['nodes'][:3]]}" for one in found
    ]
    assert not told, "\n".join(told)


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
    walk.page.locator("#filters summary", has_text="Type").click()
    walk.page.locator("#filters [open] label", has_text="skirt").click()
    walk.settled()
    walk.page.keyboard.press("Escape")
    walk.page.locator("#not").fill("pink")
    walk.page.locator("#not").press("Enter")
    walk.settled()
    names = walk.found()
    assert names
    assert all("skirt" in name for name in names), names
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
    walk.page.locator("#titles-switch").click()  # the device sends a vector, and no words to find in titles
    walk.settled()
    there = walk.found()
    walk.page.locator("#device").click()
    expect(walk.page.locator("#costs")).to_be_visible(timeout=60_000)
    walk.settled()
    assert walk.found() == there, (walk.found(), there)
    walk.page.locator("#results .use").nth(4).click(modifiers=["Shift"])  # a second reference
    walk.settled()
    here = walk.found()
    walk.page.locator("#device").click()
    walk.settled()
    # the item's picture comes to the device as a JPEG: almost the same vector
    assert sorted(walk.found()) == sorted(here), (walk.found(), here)
    walk.page.locator("#device").click()
    walk.page.locator("#also button").last.click()
    walk.page.locator("#text").fill("but orange")
    walk.settled()
    print("  same ten on the device; first query, last query, sent in all:")
    for row in walk.page.locator("#costs tbody tr").all():
        print(f"    {' · '.join(row.inner_text().split(chr(9)))}")
    walk.shot("page-device")
    walk.page.locator("#text").fill("red " * 80)
    expect(walk.page.locator("#problem")).to_contain_text("too long")
    walk.page.locator("#text").fill("")
    walk.settled()
    walk.page.locator("#closer summary").click()
    for place in range(walk.page.locator("#pseudo .switch").count()):
        walk.page.locator("#pseudo .switch").nth(place).click()
    expect(walk.page.locator("#problem")).to_contain_text("Every pseudo-word is switched off")
    walk.page.locator("#pseudo .switch").first.click()
    expect(walk.page.locator("#problem")).to_be_hidden()


def words_and_titles(walk: Walk, address: str, axe: Path | None) -> None:
    """Titles count until switched off; what is negated is offered as unwanted; a dragged result is asked with."""
    page = walk.page
    page.goto(address)
    walk.settled()
    walk.type("00012")  # a file's name
    assert len(walk.found()) == 1
    page.locator("#titles-switch").click()
    walk.settled()
    assert "titles=0" in page.url
    expect(page.locator("#empty")).to_contain_text("no title or file name has one")
    page.locator("#titles-switch").click()
    walk.settled()
    assert len(walk.found()) == 1
    page.locator("#text").fill("a jumper -purple")
    walk.settled()
    accessible(page, axe)
    page.locator("#note button", has_text="Leave out purple").click()
    walk.settled()
    assert page.locator("#text").input_value() == "a jumper"
    expect(page.locator("#without")).to_contain_text("without purple")
    assert not any("purple" in name for name in walk.found()), walk.found()
    walk.shot("page-words")
    walk.drag("#results li:nth-child(2)", "#drop")
    walk.settled()
    expect(page.locator("#shown")).to_be_visible()
    assert "item=" in page.url


def several_selected(walk: Walk, address: str, axe: Path | None) -> None:
    """Results are selected with the keyboard, saved as a list and drawn into one picture."""
    page = walk.page
    page.goto(address)
    walk.settled()
    page.locator("#select").focus()
    page.keyboard.press("Enter")
    page.locator("#results .open").first.focus()
    for _ in range(3):
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
    expect(page.locator("#selection-count")).to_have_text("3 selected")
    assert page.locator("#results .open[aria-pressed=true]").count() == 3
    expect(page.locator("#detail")).to_be_hidden()
    accessible(page, axe)
    walk.shot("page-selection")
    if saved := walk.saved("#selection-save"):
        lines = saved[1].read_text().splitlines()
        assert len(lines) == 3
        assert all(Path(line).is_file() for line in lines), lines  # on this computer paths are shown
    if drawn := walk.saved("#selection-sheet"):
        assert Image.open(drawn[1]).size == (16 + 3 * 208, 16 + 242)
    expect(page.locator("#selection-count")).to_have_text("3 selected")
    page.locator("#select").click()
    page.locator("#results .open").first.click()
    expect(page.locator("#detail")).to_be_visible()
    page.keyboard.press("Escape")


def looked_closely(walk: Walk, address: str, axe: Path | None) -> None:
    """A result's picture, facts, file and likes; what is not wanted is pushed back; the focus comes back."""
    page = walk.page
    page.goto(address)
    walk.settled()
    walk.type("a purple jumper")
    names, number = walk.found(), page.locator("#results .open").first
    number.click()
    detail = page.locator("#detail")
    expect(page.locator("#detail-title")).to_have_text(names[0])
    expect(page.locator("#detail-similar li")).not_to_have_count(0)
    facts = " ".join(page.locator("#detail-facts").inner_text().split())
    for fact in ("Type jumper", "Colour purple", "File", "Path /", "256 × 256 pixels"):
        assert fact in facts, facts
    assert page.locator("#detail-picture").evaluate("one => one.decode().then(() => one.naturalWidth)") >= 256
    if saved := walk.saved("#detail-download"):
        assert saved[0] == facts.partition("File ")[2].split()[0]
    expect(page.locator("#detail-before")).to_be_disabled()
    page.locator("#detail-after").click()
    expect(page.locator("#detail-title")).to_have_text(names[1])
    accessible(page, axe)
    walk.shot("page-detail")
    for _ in range(30):  # the focus stays inside
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('#detail')"
        )
    page.locator("#detail-similar button").first.click()
    expect(page.locator("#detail-place")).to_contain_text("Similar picture 1 of")
    page.locator("#detail-close").click()
    expect(detail).to_be_hidden()
    page.locator("#results .open").first.click()
    page.locator("#detail-unlike").click()
    walk.settled()
    assert walk.found() != names
    assert "unlike=" in page.url
    page.locator("#without button").click()
    walk.settled()
    assert walk.found() == names


def there_and_back(walk: Walk, address: str) -> None:
    """The browser's Back shows the step that the address names; the skip link leaves the query alone."""
    page, reference = walk.page, walk.page.locator("#picture")
    page.goto(address)
    walk.settled()
    walk.go_on()
    walk.back()
    walk.settled()
    expect(page.locator("#shown")).to_be_hidden()
    sources = []
    for _ in range(3):
        walk.go_on()
        sources.append(reference.get_attribute("src"))
    page.locator("#trail button").nth(1).click()
    walk.settled()
    page.locator("#results .use").nth(4).click()
    walk.settled()
    for expected in (sources[1], sources[2]):
        walk.back()
        walk.settled()
        assert reference.get_attribute("src") == expected
    page.locator("#text").fill("but blue")
    walk.settled()
    before = page.url
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    walk.is_at("#results")
    assert (page.url, page.locator("#text").input_value()) == (before, "but blue")


def kept(walk: Walk, address: str, photo: Path) -> None:
    """A reload brings everything back, one's own picture too; orders and saved searches lead where they should."""
    page = walk.page
    page.goto(address)
    page.reload()
    walk.settled()
    assert page.title() == "image2sentence"
    walk.drop(photo)
    walk.type("but purple")
    assert page.title() == "a picture, but purple · image2sentence"
    page.locator("#filters summary", has_text="Type").click()
    page.locator("#filters [open] label", has_text="jumper").click()
    walk.settled()
    page.keyboard.press("Escape")
    names = walk.found()
    assert "own=" in page.url
    page.locator("#saved summary").click()
    page.locator("#saved-name").fill("mine")
    page.keyboard.press("Enter")
    expect(page.locator("#saved-list")).to_contain_text("mine")
    page.keyboard.press("Escape")
    page.reload()
    walk.settled()
    expect(page.locator("#shown")).to_be_visible()
    assert page.locator("#picture").evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    assert (walk.found(), page.locator("#text").input_value()) == (names, "but purple")
    page.locator("#home").click()
    walk.settled()
    page.select_option("#sort", "@name")
    walk.settled()
    page.locator("#sort-way").click()
    walk.settled()
    page.locator("#results .open").first.click()
    expect(page.locator("#detail-facts")).to_contain_text("00720.jpg")
    expect(page.locator("#detail-show")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("#filters summary", has_text="Title").click()
    page.locator(".sought input[type=search]").fill("purple jumper")
    expect(page.locator("#filters [open] label").first).to_contain_text("urple jumper")
    page.keyboard.press("Escape")
    page.evaluate("scrollTo(0, 6000)")
    expect(page).to_have_url(re.compile(r"at=\d"), timeout=20_000)
    place = int(page.url.partition("at=")[2].partition("&")[0])
    page.reload()
    walk.settled()
    first = int(page.locator("#results li").first.get_attribute("data-place") or -1)
    assert first <= place <= first + 60
    assert page.evaluate("document.querySelectorAll('*').length") < 1_500
    page.locator("#saved summary").click()
    page.locator("#saved-list .name").click()
    walk.settled()
    assert walk.found() == names
    expect(page.locator("#shown")).to_be_visible()


def slow_link(walk: Walk, address: str, photo: Path) -> None:
    """A picture on its way is sent once, and what the model read in it comes, though words are typed meanwhile."""
    page = walk.page
    page.goto(address)
    walk.settled()
    link = page.context.new_cdp_session(page)
    limits = {"offline": False, "latency": 1200, "downloadThroughput": -1, "uploadThroughput": -1}
    link.send("Network.emulateNetworkConditions", limits)
    page.evaluate(COUNT_FILES)
    page.evaluate(DROP, [photo.name, base64.b64encode(photo.read_bytes()).decode()])
    page.locator("#text").press_sequentially("but purple", delay=20)
    expect(page.locator("#pseudo button")).to_have_count(4, timeout=30_000)
    walk.settled()
    first_is(walk, STEPS[0][1])
    assert page.evaluate("window.filesSent") == 1
    link.send("Network.emulateNetworkConditions", limits | {"latency": 0})


def mistakes(walk: Walk, address: str, photo: Path) -> None:
    """A file that is no picture, words that nobody knows, and as many unwanted words as there may be."""
    page = walk.page
    page.goto(address)
    walk.settled()
    page.evaluate(DROP, ["notes.jpg", base64.b64encode(b"no picture").decode()])
    expect(page.locator("#problem")).to_be_visible()
    expect(page.locator("#retry")).to_be_hidden()  # the same would be answered
    box, stage = page.locator("#remove").bounding_box(), page.locator(".stage").bounding_box()
    assert box is not None
    assert stage is not None
    assert box["y"] + box["height"] <= stage["y"] + stage["height"]
    walk.drop(photo)
    expect(page.locator("#problem")).to_be_hidden()
    walk.type("redd re redd")
    suggested = page.locator("#note button").first.inner_text()
    page.locator("#note button").first.click()
    walk.settled()
    assert page.locator("#text").input_value() == f"{suggested} re {suggested}"
    page.locator("#share").click()
    expect(page.locator("#toast")).to_contain_text("not your own picture")
    for number in range(8):
        page.locator("#not").fill("w" * 300 + str(number))
        page.locator("#not").press("Enter")
    expect(page.locator("#not")).to_be_hidden()
    walk.settled()
    assert page.evaluate("document.documentElement.scrollWidth") <= DESKTOP["width"]
    page.goto(address)
    walk.settled()
    walk.type("zzxqy qqwvx")
    expect(page.locator("#empty")).to_contain_text("knows none of these words")
    expect(page.locator("#note")).to_contain_text("“zzxqy” is not a word this model knows")
    page.locator("#device").click()
    expect(page.locator("#device-note")).to_contain_text("Encoded here", timeout=60_000)
    walk.settled()
    expect(page.locator("#empty")).to_contain_text("knows none of these words")
    page.locator("#text").fill("a red zzxqy")
    walk.settled()
    expect(page.locator("#results .open")).not_to_have_count(0)
    page.locator("#device").click()


def opened(browser: Browser, address: str, **options: Any) -> Page:
    """A page of its own context, which fails on errors in the console."""
    page = browser.new_context(**options).new_page()
    page.on("pageerror", lambda error: print(f"  page error: {error}"))
    page.on("console", lambda line: print(f"  console: {line.text}") if line.type == "error" else None)
    page.goto(address)
    return page


def other_looks(browser: Browser, address: str, photo: Path, shots: Path | None, axe: Path | None) -> None:
    """Phone width, and the dark theme of both widths."""
    looks: dict[str, dict[str, Any]] = {
        "page-dark": {"viewport": DESKTOP, "color_scheme": "dark"},
        "page-phone": {
            "viewport": PHONE,
            "is_mobile": True,
            "has_touch": True,
            "device_scale_factor": 2,
        },
        "page-phone-dark": {
            "viewport": PHONE,
            "is_mobile": True,
            "has_touch": True,
            "device_scale_factor": 2,
            "color_scheme": "dark",
        },
    }
    for name, options in looks.items():
        wanted = dict(options)
        if (
            browser.browser_type.name == "firefox"
        ):  # which has no touch, and takes its theme from the page's button
            wanted = {"viewport": options["viewport"]}
        page = opened(browser, address, **wanted)
        if wanted != options and "dark" in name:
            page.locator("#theme").click()
        walk = Walk(page, shots)
        walk.settled()
        walk.drop(photo)
        walk.type(STEPS[0][0])
        first_is(walk, STEPS[0][1])
        accessible(page, axe)
        over = page.evaluate("document.documentElement.scrollWidth") - options["viewport"]["width"]
        assert over <= 0, f"{name}: the page is {over} pixels wider than the screen"
        walk.shot(name)
        page.locator("#results .open").first.click()
        expect(page.locator("#detail-similar li")).not_to_have_count(0)
        accessible(page, axe)
        walk.shot(name.replace("page", "page-detail"))
        page.context.close()


FIREFOX_SKIPS = {"a slow link"}
"""What is done with a tool that only Chromium has: limits of the network."""


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--runtime", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--axe", type=click.Path(exists=True, path_type=Path), help="axe-core's axe.min.js.")
@click.option("--screenshots", type=click.Path(path_type=Path))
@click.option("--chromium", default="/usr/bin/chromium", show_default=True)
@click.option("--firefox", help="Walk in this Firefox instead, such as /usr/bin/firefox-esr.")
@click.option("--only", multiple=True, help="Do these stages only; can be repeated.")
def main(
    work: Path,
    runtime: Path,
    axe: Path | None,
    screenshots: Path | None,
    chromium: str,
    firefox: str | None,
    only: tuple[str, ...],
) -> None:
    """Walk through the page, with its catalogue and gallery in WORK."""
    if sync_playwright is None:
        raise click.ClickException("walking through the page needs: pip install playwright")
    gallery, photo = index(work)
    expect.set_options(timeout=PATIENCE)
    with server(gallery, "--browser-runtime", str(runtime)) as (port, _, _), sync_playwright() as playwright:
        address = f"http://localhost:{port}/"
        browser = launched(playwright, chromium, firefox)
        walk = Walk(opened(browser, address, viewport=DESKTOP), screenshots)
        walk.settled()
        stages: dict[str, Callable[[], None]] = {
            "three steps": lambda: three_steps(walk, photo),
            "attention": lambda: attention(walk),
            "a word switched off": lambda: switched_off(walk),
            "filtered": lambda: filtered(walk),
            "accessible": lambda: accessible(walk.page, axe),
            "on the device": lambda: on_device(walk, address, photo),
            "words and titles": lambda: words_and_titles(walk, address, axe),
            "several references": lambda: several_references(
                walk, address, others(photo), lambda: accessible(walk.page, axe)
            ),
            "by address": lambda: by_address(walk, address, photo, lambda: accessible(walk.page, axe)),
            "several selected": lambda: several_selected(walk, address, axe),
            "looked closely": lambda: looked_closely(walk, address, axe),
            "there and back": lambda: there_and_back(walk, address),
            "kept": lambda: kept(walk, address, photo),
            "a slow link": lambda: slow_link(walk, address, photo),
            "odd titles": lambda: odd(browser, address, screenshots, axe),
            "mistakes": lambda: mistakes(walk, address, photo),
            "by keyboard": lambda: by_keyboard(Walk(opened(browser, address, viewport=DESKTOP), None)),
            "indexed from the page": lambda: indexed(browser, work, screenshots, axe),
            "other looks": lambda: other_looks(browser, address, photo, screenshots, axe),
        }
        for name, stage in stages.items():
            if (only and name not in only) or (firefox and name in FIREFOX_SKIPS):
                continue
            print(name, flush=True)
            stage()
        browser.close()
    print("all as expected")


def odd(browser: Browser, address: str, shots: Path | None, axe: Path | None) -> None:
    """Odd titles on both widths."""
    for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        page = opened(browser, address, viewport=size)
        odd_titles(Walk(page, shots), address, lambda page=page: accessible(page, axe), name, size["width"])
        page.context.close()


def launched(playwright: Playwright, chromium: str, firefox: str | None) -> Browser:
    """Headless Chromium, or a Firefox as its makers build it, by WebDriver BiDi."""
    if firefox is not None:
        return playwright.firefox.launch(channel="moz-firefox", executable_path=firefox)
    return playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])


def indexed(browser: Browser, work: Path, shots: Path | None, axe: Path | None) -> None:
    """A server that is started where no gallery is; its page leads through indexing."""
    pictures = write_catalogue(work / "new" / "products", *NEW)
    with TemporaryDirectory() as empty, server(None, folder=Path(empty)) as (port, _, _):
        page = opened(browser, f"http://localhost:{port}/", viewport=DESKTOP)
        walk = Walk(page, shots)
        first_run(page, pictures)
        walk.shot("page-index")
        stopped_and_gone_on(page, NEW[0], lambda: accessible(page, axe))
        accessible(page, axe)
        shown(page, NEW[0])
        page.context.close()


if __name__ == "__main__":
    main()
