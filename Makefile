# Everything happens in .venv; delete it to start over.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECKED := src tests recipes examples benchmarks js

.PHONY: demo test test-js js-copy check format clean

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

# the server's page uses the browser's module: js/src is the original, the package has a copy
js-copy:
	rm -rf src/image2sentence/server/static/device
	mkdir src/image2sentence/server/static/device
	cp js/src/*.js src/image2sentence/server/static/device/

check: $(VENV)/development
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy

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

$(VENV)/development: pyproject.toml constraints.txt $(VENV)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $@
