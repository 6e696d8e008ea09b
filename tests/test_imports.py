"""The runtime needs no training packages, and `--help` needs almost nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import image2sentence
from image2sentence import errors

TRAINING = ("torch", "transformers", "accelerate", "onnx", "safetensors")

# An import that is tried and caught (`except ImportError`) is found too: the finder sees every attempt.
WATCH = """
import sys

class Watch:
    asked = set()
    def find_spec(self, name, path=None, target=None):
        self.asked.add(name.split(".")[0])

sys.meta_path.insert(0, Watch())
"""

EVERY_RUNTIME_MODULE = """
import importlib, pkgutil
import image2sentence

def walk(path, prefix):
    for module in pkgutil.iter_modules(path, prefix):
        if module.name in ("image2sentence.training", "image2sentence.__main__"):
            continue
        loaded = importlib.import_module(module.name)
        print(module.name)
        if module.ispkg:
            walk(loaded.__path__, module.name + ".")

walk(image2sentence.__path__, "image2sentence.")
"""

HELP = """
import sys
from image2sentence.cli import main
sys.argv = ["image2sentence", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
"""


def _asked_for(code: str) -> tuple[set[str], str]:
    """The top-level packages that the code tries to import in a new interpreter, and what it printed."""
    program = f"{WATCH}\n{code}\nprint('ASKED', *sorted(Watch.asked))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    printed, _, asked = ran.stdout.rpartition("ASKED ")
    return set(asked.split()), printed


def test_runtime_modules_import_no_training_package() -> None:
    asked, modules = _asked_for(EVERY_RUNTIME_MODULE)
    assert not asked & set(TRAINING)
    assert {
        "image2sentence.query",
        "image2sentence.gallery.sqlite.gallery",
        "image2sentence.encoders.onnx_encoder",
    } <= set(modules.split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["search", "--help"], ["evaluate", "attributes", "--help"]]
)
def test_help_is_light(arguments: list[str]) -> None:
    asked, printed = _asked_for(HELP.format(arguments=arguments))
    assert "Usage: image2sentence" in printed
    assert not asked & {"numpy", "PIL", "onnxruntime", "tokenizers", "tqdm", "sqlite3", *TRAINING}


def test_a_search_needs_no_module_of_networks() -> None:
    asked, _ = _asked_for("import image2sentence.cli.main, image2sentence.query, image2sentence.hub.find")
    assert not asked & {"ssl", "http", "email"}


def test_opening_a_folder_needs_no_module_of_databases() -> None:
    _, printed = _asked_for("import sys, image2sentence.gallery.opening; print(*sys.modules)")
    assert "image2sentence.gallery.sqlite.gallery" in printed.split()
    assert not [name for name in printed.split() if name.startswith("image2sentence.gallery.milvus.gallery")]


def test_importing_the_package_imports_nothing_else() -> None:
    asked, _ = _asked_for("import image2sentence")
    assert not asked & {"numpy", "PIL", "click", "onnxruntime"}


def test_every_public_name_is_there() -> None:
    for name in image2sentence.__all__:
        assert getattr(image2sentence, name).__name__ == name
    assert set(image2sentence.__all__) <= set(dir(image2sentence))


def test_every_exception_is_public() -> None:
    raised = {
        name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)
    }
    assert raised <= set(image2sentence.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        image2sentence.nothing  # noqa: B018
