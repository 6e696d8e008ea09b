"""Build hooks: the README for package indexes, the browser module in the wheel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

SOURCE = "Source"
"""The project URL (pyproject.toml) that relative links are resolved against, where there is one."""

BROWSER_MODULE = "js/src"
DEVICE = "image2sentence/server/static/device"
"""Where the wheel has the browser module: the server's page imports it from there, and in a clone from js/src."""

_IMAGE = re.compile(r"^!\[[^\]]*\]\((?!\w+:)[^)]+\)\n\n", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Takes the long description from README.md, without links that lead nowhere outside the repository."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets `readme`; hatchling calls this while it builds."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get(SOURCE)
        metadata["readme"] = {"content-type": "text/markdown", "text": for_package_index(text, source)}


class BrowserModuleHook(BuildHookInterface[Any]):
    """Puts the scripts of js/src into the wheel; an editable installation serves them from the clone."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the files to be built; hatchling calls this. Raises FileNotFoundError where there are none."""
        scripts = sorted((Path(self.root) / BROWSER_MODULE).glob("*.js"))
        if not scripts:
            raise FileNotFoundError(f"{BROWSER_MODULE} has no scripts: build from a whole clone")
        if version != "editable":
            build_data["force_include"].update({str(one): f"{DEVICE}/{one.name}" for one in scripts})


def for_package_index(text: str, source: str | None) -> str:
    """Markdown whose relative links are absolute, or, without a repository's address, are their paths as text.

    Args:
        text: Markdown with links relative to the repository.
        source: The repository's address, such as https://example.org/owner/name; None if it has none.
    """
    if source is None:
        return _LINK.sub(r"`\3`", _IMAGE.sub("", text))
    base = source.rstrip("/")
    return _LINK.sub(lambda m: f"{m[1]}[{m[2]}]({base}/{'raw' if m[1] else 'blob'}/main/{m[3]})", text)
