"""Whether the server keeps what its OpenAPI description promises, whatever it is sent: schemathesis against it.

    pip install schemathesis
    python -m benchmarks.server.contract GALLERY [--examples 100]

Starts `image2sentence serve` on this computer, then lets schemathesis make requests from the description: examples,
the ends of ranges, random ones that keep to it and random ones that do not. Fails on an answer 5xx, on a status or a
body that the description does not have. Prints schemathesis' own report, and the server's memory before and after.

Three of its checks are left out: that every request is accepted that a schema allows (a schema cannot say which
conditions the columns allow, or that one reference is enough); that each is refused that it does not allow (an empty
list in place of a form's field is not sent at all); and the type of answers to what is no HTTP, which uvicorn refuses
in plain text before the application sees it. Where schemathesis itself fails to make a request, its report says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.server.process import resident, server

LEFT_OUT = "positive_data_acceptance,negative_data_rejection,content_type_conformance"


@click.command()
@click.argument("gallery", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--examples", default=100, show_default=True, help="Random requests of each kind and operation."
)
@click.option("--seed", default=0, show_default=True)
def main(gallery: Path, examples: int, seed: int) -> None:
    """Hold a server over GALLERY to its description."""
    with server(gallery) as (port, process, _), tempfile.TemporaryDirectory() as folder:
        before = resident(process.pid)
        report = Path(folder, "report.json")
        command = [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"),
            f"http://localhost:{port}/openapi.json",
            *("--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure"),
            *("--exclude-checks", LEFT_OUT, "--warnings", "off", "--report-json-path", str(report)),
        ]
        subprocess.run(command, check=False)
        print(f"memory {before:.0f} -> {resident(process.pid):.0f} MiB")
        failures = json.loads(report.read_text())["failures"]
    print(
        "; ".join(f"{one['title']}: {one['count']}" for one in failures) or "the server kept what it promises"
    )
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
