# Everything happens in .venv; delete it to start over.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AUDIT := .cache/audit
LOWEST := .cache/lowest
ADVISORIES := https://pypi.org/pypi/pillow/10.2.0/json # has some: where none come, nobody was asked
CHECKED := src tests recipes examples benchmarks js hatch_build.py

# not with training and its recipes: torch's own bounds are in constraints.txt
LOWEST_TESTS ?= --ignore tests/training --ignore tests/recipes

CLIENTS := .cache/clients

.PHONY: demo test test-js test-lowest optional clients docs check audit format clean

# draw a catalogue, index it, ask six composed queries, check the answers (installs no torch)
demo: $(VENV)/runtime
	rm -rf .demo/gallery
	$(BIN)/python examples/demo.py .demo

# everything that has to pass: style, types, tests
test: $(VENV)/development check
	$(BIN)/python -m pytest

# the browser's module against Python, in a headless Chromium (needs node, npm and chromium)
test-js: $(VENV)/development js/node_modules
	cd js && PYTHON=$(CURDIR)/$(BIN)/python npm test

# the tests of the runtime with the lowest versions that pyproject.toml allows
test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest $(LOWEST_TESTS)

# what tests use where it is there: Ray, MTEB, and the browser's module in Chromium; says what is not, and why
optional: $(VENV)/development
	@$(BIN)/pip install --quiet --constraint constraints.txt 'ray>=2.40' 'mteb>=2.0' \
	  || echo "optional: Ray or MTEB has no release for this Python or machine: their tests are skipped" >&2
	@if command -v npm >/dev/null && command -v chromium >/dev/null; then $(MAKE) --no-print-directory js/node_modules \
	    || echo "optional: npm cannot fetch the browser module's packages: it is not tested in Chromium" >&2; \
	  else echo "optional: npm or chromium is not installed: the browser's module is not tested in Chromium" >&2; fi
	@$(MAKE) --no-print-directory clients || echo "optional: generators of clients cannot be had: none is tested" >&2

# generators of clients from the server's OpenAPI description (needs npm), each in a folder of its own
clients: $(CLIENTS)/installed
	cd tests/server/clients && npm ci --ignore-scripts

# the site of docs/, in build/site; a warning is an error
docs: $(VENV)/development
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

check: $(VENV)/development
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy

# known vulnerabilities of what a server's installation brings; asks PyPI, and fails where it cannot be asked
audit:
	@$(PYTHON) -c "import json, urllib.request as r; assert json.load(r.urlopen('$(strip $(ADVISORIES))', timeout=20))['vulnerabilities']" \
	  2>/dev/null || { echo "audit: PyPI's advisories cannot be had from here: NOTHING WAS AUDITED" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(AUDIT)
	$(AUDIT)/bin/pip install --quiet '.[server,milvus]'
	$(AUDIT)/bin/pip freeze --exclude image2sentence > $(AUDIT)/installed.txt
	$(AUDIT)/bin/pip install --quiet pip-audit
	$(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps --requirement $(AUDIT)/installed.txt

format: $(VENV)/development
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

clean:
	rm -rf $(VENV) .demo .cache .pytest_cache .ruff_cache .mypy_cache build dist

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/runtime: pyproject.toml $(VENV)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

js/node_modules: js/package.json js/package-lock.json
	cd js && npm ci --ignore-scripts
	touch $@

$(CLIENTS)/installed:
	$(PYTHON) -m venv --clear $(CLIENTS)
	$(CLIENTS)/bin/pip install --quiet 'openapi-python-client>=0.29,<0.30'
	touch $@

$(LOWEST)/installed: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --quiet uv
	$(LOWEST)/bin/uv pip compile --quiet --resolution lowest-direct --extra dev --extra heic --extra hub --extra jxl \
	  --python $(LOWEST)/bin/python --output-file $(LOWEST)/versions.txt pyproject.toml
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --requirement $(LOWEST)/versions.txt
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --no-deps --editable .
	touch $@

$(VENV)/development: pyproject.toml constraints.txt $(VENV)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $@
