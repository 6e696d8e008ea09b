"""Several pictures in one query, as people put them together; part of `benchmarks.server.page_walk`."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import Page, Route, expect

if TYPE_CHECKING:
    from benchmarks.server.page_walk import Walk

DROP_SEVERAL = """([files, x]) => {
  const dataTransfer = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    dataTransfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  }
  for (const kind of ["dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, clientX: x }));
}"""
PASTE = """(text) => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  const event = new ClipboardEvent("paste", { bubbles: true, cancelable: true });
  Object.defineProperty(event, "clipboardData", { value: clipboardData }); // which Firefox lets no script give
  document.body.dispatchEvent(event);
  return event.defaultPrevented;
}"""
HEAT = """() => {
  const canvas = document.getElementById("heat");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const reds = data.filter((_, place) => place % 4 === 0);
  return [Number(getComputedStyle(canvas).opacity), Math.max(...reds) - Math.min(...reds)];
}"""
LEFT, RIGHT = 40, 1200


def drop_several(page: Page, photos: Sequence[Path], x: int = LEFT) -> None:
    """Drop picture files together, so far from the left edge of the page."""
    files = [[photo.name, base64.b64encode(photo.read_bytes()).decode()] for photo in photos]
    page.evaluate(DROP_SEVERAL, [files, x])


def several_references(walk: Walk, address: str, photos: Sequence[Path], check: Callable[[], None]) -> None:
    """Two pictures dropped together, weighed by keys, kept by a reload; more added and taken out."""
    page = walk.page
    page.goto(address)
    walk.settled()
    drop_several(page, photos[:2])
    walk.type("in purple")
    entries = page.locator("#also li")
    expect(entries).to_have_count(2)
    assert page.title() == "a picture and 1 more, in purple · image2sentence"
    equal = walk.found()
    weight = page.get_by_label("Weight of picture 2")
    weight.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    walk.settled()
    walk.is_at("#also li:nth-child(2) input")
    expect(weight).to_have_attribute("aria-valuetext", "counts four times")
    expect(page).to_have_url(re.compile(r"own=\w+&also=own-\w+%2C4"))
    leaning = walk.found()
    assert leaning != equal
    looked_at_each(walk)
    check()
    walk.shot("page-several")
    page.reload()
    walk.settled()
    expect(entries).to_have_count(2)
    assert page.locator("#also img").last.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    assert walk.found() == leaning
    page.locator("#share").click()
    expect(page.locator("#toast")).to_contain_text("your own 2 pictures")
    added_and_taken_out(walk, photos[2])


def looked_at_each(walk: Walk) -> None:
    """What the model read in each of two pictures, by keys; words of the first alone can be switched off."""
    page = walk.page
    page.locator("#closer summary").click()
    pseudo, looks = page.locator("#pseudo"), page.locator("#also .look")
    expect(looks.first).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#looked-at")).to_have_text("What the model looked at in picture 1")
    expect(pseudo.locator("input").first).to_be_attached()
    first = (page.locator("#picture").get_attribute("src"), pseudo.inner_text())
    looks.last.focus()
    page.keyboard.press("Enter")
    expect(looks.last).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#looked-at")).to_have_text("What the model looked at in picture 2")
    expect(pseudo.locator("button").first).to_be_visible()
    expect(pseudo.locator("input")).to_have_count(0)
    second = (page.locator("#picture").get_attribute("src"), pseudo.inner_text())
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert page.locator("#picture").evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    page.locator("#pseudo button").first.focus()
    assert page.evaluate(HEAT)[1] > 0, "where a word of the second picture looks"


def added_and_taken_out(walk: Walk, photo: Path) -> None:
    """A file on the right half joins, on the left half it begins a step; results join; each can leave."""
    page, entries = walk.page, walk.page.locator("#also li")
    drop_several(page, [photo], RIGHT)
    expect(entries).to_have_count(3)
    drop_several(page, [photo], LEFT)
    walk.settled()
    expect(entries).to_have_count(0)
    walk.back()
    walk.settled()
    expect(entries).to_have_count(3)
    page.locator("#results .use").first.click(modifiers=["Shift"])
    walk.settled()
    page.locator("#results .open").nth(1).click()
    page.locator("#detail-also").click()
    walk.settled()
    expect(entries).to_have_count(5)
    page.get_by_role("button", name=re.compile("Take out picture 2")).click()
    walk.settled()
    expect(entries).to_have_count(4)
    assert page.evaluate("!!document.activeElement.closest('#also')")
    page.locator("#remove").click()
    walk.settled()
    expect(entries).to_have_count(3)
    expect(page.locator("#shown")).to_be_visible()
    walk.drag("#results li:nth-child(3)", "#add-also")
    expect(entries).to_have_count(4)
    for _ in range(3):
        page.locator("#also .gone").last.click()
    walk.settled()
    expect(page.locator("#also-row .button")).to_be_visible()
    expect(entries).to_have_count(0)


def by_address(walk: Walk, address: str, photo: Path, check: Callable[[], None]) -> None:
    """An address of an allowed host is fetched from the field and when pasted; the server's part is played here."""
    page, host = walk.page, "images.example.org"
    asked: list[str] = []

    def about(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"fetches_from": [host]})

    def picture(route: Route) -> None:
        asked.append(route.request.url)  # Firefox's driver tells no bodies
        known = len(asked) > 1
        problem = {"error": "the picture cannot be fetched: its host answered 404"}
        if known:
            route.fulfill(body=photo.read_bytes(), content_type="application/octet-stream")
        else:
            route.fulfill(status=422, json=problem)

    page.route("**/v1/gallery*", about)
    page.route("**/v1/fetch", picture)
    page.goto(address)
    page.reload()
    walk.settled()
    check()
    walk.shot("page-address")
    page.locator("#address").fill(f"https://{host}/gone.png")
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_contain_text("answered 404")
    page.locator("#address").fill(f"https://{host}/red.png")
    page.keyboard.press("Enter")
    expect(page.locator("#shown")).to_be_visible()
    assert page.locator("#picture").evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    page.locator("#remove").click()
    walk.settled()
    for text, taken in ((f"https://{host}/red.png", True), ("https://elsewhere.example/red.png", False)):
        assert page.evaluate(PASTE, text) == taken
    expect(page.locator("#shown")).to_be_visible()
    page.unroute_all()
