"""Opening a picture's file, or the folder it lies in, with the programs of this computer's desktop. No shell."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from image2sentence.errors import QueryError

SECONDS = 3.0
"""How long is waited to see whether a program fails; what runs longer is the viewer itself."""

_MANAGER = "org.freedesktop.FileManager1"


def open_commands(path: Path) -> list[list[str]]:
    """Commands that open a file with the program of its kind; the next is for where the one before fails."""
    if sys.platform == "darwin":
        return [["open", str(path)]]
    if sys.platform == "win32":
        return [["explorer", str(path)]]
    return [["xdg-open", str(path)]]


def show_commands(path: Path) -> list[list[str]]:
    """Commands that show a file in its folder, as `open_commands`."""
    if sys.platform == "darwin":
        return [["open", "-R", str(path)]]
    if sys.platform == "win32":
        return [["explorer", f"/select,{path}"]]
    address = "file://" + quote(str(path), safe="/", errors="surrogateescape")
    asked = [f"--dest={_MANAGER}", "--type=method_call", "--print-reply", "/org/freedesktop/FileManager1"]
    shown = [f"{_MANAGER}.ShowItems", f"array:string:{address}", "string:"]
    return [["dbus-send", "--session", *asked, *shown], ["xdg-open", str(path.parent)]]


def run_first(commands: Sequence[Sequence[str]]) -> None:
    """Run the first of the commands that works. Raises QueryError where none does."""
    if not any(_works(command) for command in commands):
        raise QueryError("this computer has no program that opens it; copy the path instead")


def _works(command: Sequence[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        code = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return code == 0 or command[0] == "explorer"  # which says 1 when it has done it
