"""Lighthouse's four figures of the page, for desktop and phone: performance, accessibility, best practices, SEO.

    npm install --ignore-scripts lighthouse
    python -m benchmarks.server.page_lighthouse GALLERY --lighthouse node_modules/lighthouse/cli/index.js

Serves GALLERY, loads the page in a headless Chromium and prints the figures, 0 to 100, with the audits that are not
passed. Performance is a simulated one of the processor time that the page took here: on a machine that is busy with
other work it says how busy. Ends with 1 where a figure is below `--least`.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.server.process import server

FIGURES = ("performance", "accessibility", "best-practices", "seo")
FORMS: dict[str, tuple[str, ...]] = {"desktop": ("--preset=desktop",), "phone": ()}
CHROMIUM_FLAGS = "--headless=new --no-sandbox --disable-gpu"


def report(
    script: Path, address: str, chromium: str, options: tuple[str, ...], seconds: int
) -> dict[str, Any]:
    """Lighthouse's report of an address."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.json")
        command = ["node", str(script), address, "--quiet", "--output=json", f"--output-path={file}"]
        command += [f"--only-categories={','.join(FIGURES)}", f"--chrome-flags={CHROMIUM_FLAGS}"]
        command += [f"--max-wait-for-load={1000 * seconds}", *options]
        subprocess.run(command, env=os.environ | {"CHROME_PATH": chromium}, check=True, timeout=4 * seconds)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


def figures(found: dict[str, Any]) -> dict[str, int]:
    """The four figures, 0 to 100."""
    return {name: round(100 * (found["categories"][name]["score"] or 0)) for name in FIGURES}


def not_passed(found: dict[str, Any]) -> list[str]:
    """What costs points: its name, its score and its value."""
    weighed = {
        one["id"] for name in FIGURES for one in found["categories"][name]["auditRefs"] if one["weight"]
    }
    audits = (found["audits"][name] for name in sorted(weighed))
    return [
        f"{one['id']} {one['score']:.2f} {one.get('displayValue', '')}".strip()
        for one in audits
        if one["score"] is not None and one["score"] < 1
    ]


@click.command()
@click.argument("gallery", type=click.Path(exists=True, path_type=Path))
@click.option("--lighthouse", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--chromium", default="/usr/bin/chromium", show_default=True)
@click.option("--least", default=95, show_default=True, help="The lowest figure that is good enough.")
@click.option("--seconds", default=120, show_default=True, help="How long the page may take to load.")
def main(gallery: Path, lighthouse: Path, chromium: str, least: int, seconds: int) -> None:
    """Print the figures of the page over GALLERY."""
    lowest = 100
    with server(gallery) as (port, _, _):
        for form, options in FORMS.items():
            found = report(lighthouse, f"http://localhost:{port}/", chromium, options, seconds)
            scores = figures(found)
            lowest = min(lowest, *scores.values())
            print(f"{form:8}" + "".join(f"  {name} {score}" for name, score in scores.items()), flush=True)
            for line in not_passed(found):
                print(f"          {line}")
    if lowest < least:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
