# Every target makes its own environment in .venv; nothing else is needed but Python 3.10 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test pytest test-all test-timm test-floors test-integrations docs wheel bench lint types links clean

demo: $(VENV)/demo
	$(BIN)/timm-dpa demo --out demo

test: lint pytest

pytest: $(VENV)/test
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m "not integrations"

# timm's own model tests, from the source distribution of the installed timm, run on our models
test-timm: $(VENV)/test
	$(BIN)/python tests/timm_own/run.py

# the fast tests with the lowest versions that pyproject.toml declares, in an environment of their own
FLOORS := .venv-floors
test-floors: $(FLOORS)/floors
	$(FLOORS)/bin/python -m pytest

$(FLOORS)/floors: pyproject.toml tests/support/floors.py $(VENV)/test
	test -x $(FLOORS)/bin/python || $(PYTHON) -m venv $(FLOORS)
	$(BIN)/python tests/support/floors.py test > $(FLOORS)/floors.txt
	$(FLOORS)/bin/python -m pip install --quiet --requirement $(FLOORS)/floors.txt --editable .
	touch $@

# the tests with the trackers, tables and runtimes of others, in an environment of their own
INTEGRATIONS := .venv-integrations
test-integrations: $(INTEGRATIONS)/integrations
	$(INTEGRATIONS)/bin/python -m pytest -m integrations

$(INTEGRATIONS)/integrations: pyproject.toml
	test -x $(INTEGRATIONS)/bin/python || $(PYTHON) -m venv $(INTEGRATIONS)
	$(INTEGRATIONS)/bin/python -m pip install --quiet --editable '.[test-integrations]'
	$(INTEGRATIONS)/bin/python -m pip install --quiet --no-deps norfair==2.3.0
	touch $@

# the site in site/; nothing is loaded from elsewhere
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir site

# for an upload: most released models are left to checkouts and the Hub, see setup.py
wheel: $(VENV)/wheel
	rm -rf dist
	TIMM_DPA_WHEEL=slim $(BIN)/python -m build

bench: $(VENV)/test
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/features.py
	$(BIN)/python benchmarks/boxes.py
	$(BIN)/python benchmarks/runtimes.py
	$(BIN)/python benchmarks/int8.py
	$(BIN)/python benchmarks/color_norm.py
	$(BIN)/python benchmarks/ranking.py
	$(BIN)/python benchmarks/gallery.py --rows 100000
	$(BIN)/python benchmarks/gallery_parts.py --rows 100000
	$(BIN)/python benchmarks/clustering.py
	$(BIN)/python benchmarks/tracklets.py
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/synth.py
	$(BIN)/python benchmarks/synth_difficulty.py
	$(BIN)/python benchmarks/imagenet_start.py --out build/bench/start schedule.epochs=1 batch.per_epoch=2 schedule.warmup_steps=0
	$(BIN)/timm-dpa data draw build/bench/toy --identities 64
	$(BIN)/python benchmarks/recipes.py --data build/bench/toy --out build/bench/recipes model.name=dpa_resnet18 \
		model.init_from=null data.image_size=64 batch.size=32 schedule.epochs=12

lint: $(VENV)/test types
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# mypy reads packages from where they lie; the links show them as they are installed
types: $(VENV)/test links
	$(BIN)/python -m mypy

links:
	rm -rf build/types
	mkdir -p build/types/timm_dpa
	ln -s $(filter-out %/__pycache__,$(wildcard $(CURDIR)/timm_dpa/*)) $(CURDIR)/train $(CURDIR)/synth $(CURDIR)/hub build/types/timm_dpa

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

$(VENV)/docs: $(VENV)/core
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(VENV)/wheel: $(VENV)/core
	$(BIN)/python -m pip install --quiet 'build>=1.2'
	touch $@

clean:
	rm -rf $(VENV) $(FLOORS) $(INTEGRATIONS) build dist site *.egg-info demo
