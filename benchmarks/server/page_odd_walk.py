"""Long titles, and those from right to left, on wide and narrow screens; part of `benchmarks.server.page_walk`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from playwright.sync_api import Route, expect

if TYPE_CHECKING:
    from benchmarks.server.page_walk import Walk

TITLES = (
    "w" * 160,
    "\u05d7\u05d5\u05dc\u05e6\u05ea \u05e4\u05e1\u05d9\u05dd \u05d0\u05d3\u05d5\u05de\u05d4 (100% cotton)",
    "\u0642\u0645\u064a\u0635 \u0645\u062e\u0637\u0637 \u0628\u0623\u0643\u0645\u0627\u0645",
    "A shirt with " + ", ".join(f"detail {number}" for number in range(40)),
    "<b>bold</b> & \u202egnp.exe",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 " * 30,
)
STARTS = """() => [...document.querySelectorAll("#results .name")].slice(1, 3).map((one) => {
  const range = document.createRange();
  range.selectNodeContents(one);
  const [text, box] = [range.getClientRects()[0], one.getBoundingClientRect()];
  return Math.round(box.right - text.right) <= 1;
})"""


def odd_titles(walk: Walk, address: str, check: Callable[[], None], name: str, width: int) -> None:
    """Nothing leaves its card or the screen, and what runs from the right begins there."""
    page = walk.page

    def retitled(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        for one, title in zip(found["items"][: len(TITLES)], TITLES, strict=True):
            one["metadata"]["title"] = title
        route.fulfill(response=answer, json=found)

    page.route("**/v1/items?*", retitled)
    page.goto(address)
    page.reload()
    walk.settled()
    expect(page.locator("#results .name").first).to_have_text(TITLES[0])
    assert page.evaluate(STARTS) == [True, True]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    check()
    walk.shot(f"page-odd-{name}")
    for place in range(2):
        page.locator("#results .open").nth(place).click()
        expect(page.locator("#detail-title")).to_have_text(TITLES[place])
        assert page.locator("#detail").evaluate("one => one.scrollWidth - one.clientWidth") <= 0
        walk.shot(f"page-odd-detail-{place}-{name}")
        page.locator("#detail-use").click()
        walk.settled()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.goto(address)
        walk.settled()
    page.unroute_all()
