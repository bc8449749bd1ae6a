# Every target makes its own environment in .venv; nothing else is needed but Python 3.10 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all test-timm wheel bench lint clean

demo: $(VENV)/demo
	$(BIN)/timm-dpa demo --out demo

test: lint
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m ""

# timm's own model tests, from the source distribution of the installed timm, run on our models
test-timm: $(VENV)/test
	$(BIN)/python tests/timm_own/run.py

# for an upload: most released models are left to checkouts and the Hub, see setup.py
wheel: $(VENV)/wheel
	rm -rf dist
	TIMM_DPA_WHEEL=slim $(BIN)/python -m build

bench: $(VENV)/demo
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/features.py
	$(BIN)/python benchmarks/ranking.py
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/synth.py

lint: $(VENV)/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# The marker files stand for what is installed.
$(VENV)/core: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/demo: $(VENV)/core
	$(BIN)/python -m pip install --quiet --editable '.[synth,train]'
	touch $@

$(VENV)/test: $(VENV)/core
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/wheel: $(VENV)/core
	$(BIN)/python -m pip install --quiet 'build>=1.2'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo
