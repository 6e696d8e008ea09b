"""Indexing from the page, as one who starts the server in an empty place; part of `benchmarks.server.page_walk`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

PATIENCE = 180_000


def first_run(page: Page, pictures: Path) -> None:
    """The dialog opens by itself; a folder is chosen by clicks, a table added, the run watched, and found in."""
    shutil.copyfile(__file__, pictures / "images" / "no-picture.jpg")
    dialog = page.locator("#folders")
    expect(dialog).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#folders-model")).to_contain_text("which knows garments")
    page.locator("#folders-path").fill(str(pictures.parent))
    page.keyboard.press("Enter")
    page.locator("#folders-list button", has_text=re.compile(f"^{pictures.name}$")).click()
    expect(page.locator("#folders-path")).to_have_value(str(pictures))
    page.locator("#folders-table").select_option("attributes.csv")
    page.locator("#folders-start").click()
    expect(page.locator("#run-status")).to_contain_text("files", timeout=PATIENCE)


def stopped_and_gone_on(page: Page, count: int, check: Callable[[], None]) -> None:
    """Stopping keeps what was finished, and the next run goes on; the page answers meanwhile, and shows what came."""
    page.locator("#run-stop").click()
    expect(page.locator("#run-title")).to_contain_text("Stopped", timeout=PATIENCE)
    page.locator("#folders-start").click()
    check()
    expect(page.locator("#run-title")).to_contain_text("is indexed", timeout=PATIENCE)
    expect(page.locator("#run-facts")).to_contain_text("known already")
    expect(page.locator("#run-facts")).to_contain_text(f"Table: {count} rows")
    page.locator("#run-failed summary").click()
    expect(page.locator("#run-reasons")).to_contain_text("no-picture.jpg: its content is not a JPEG")


def shown(page: Page, count: int) -> None:
    """The pictures and the table's columns are there, without a restart."""
    page.locator("#folders-close").click()
    expect(page.locator("#folders")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text(f"{count} pictures", timeout=PATIENCE)
    expect(page.locator("#filters summary", has_text="Sleeve")).to_be_visible()
    page.locator("#text").fill("a red shirt")
    expect(page.locator("#results .name").first).to_contain_text("shirt", timeout=PATIENCE)
