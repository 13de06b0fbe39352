# The two commands of the README are `make demo` and `make test`; both make the environment they need.
PYTHON ?= python3
VENV := .venv
# The certificates that the machine trusts, as pip uses them.
UV = $(BIN)/uv --quiet --system-certs
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_DIR ?= runs/demo
# Environments that the main one cannot be: each has packages of other versions.
BEAM := build/venv-beam
ADDONS := build/venv-addons
WHEEL := build/venv-wheel
# TensorFlow 2.15 has no wheels for a later one.
ADDONS_PYTHON ?= python3.11
ADDONS_DIR := build/addons
DOCS := build/venv-docs

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help env lint test test-slow test-wheel test-beam test-addons mutate results results-quick docs demo lock clean

help:
	@echo "make env    make .venv from requirements.lock"
	@echo "make demo   train, attack, evaluate and export a GAT on a generated sample"
	@echo "make test   lint, import directions, and all tests except those of the lanes below"
	@echo "make test-slow    the tests that take longest: several devices, kills, whole jobs, compilation"
	@echo "make test-wheel   build sdist and wheel, install the wheel and use it outside of this folder"
	@echo "make test-beam    inference and extraction on Apache Beam, in an environment of its own"
	@echo "make test-addons  exports in TensorFlow 2.15, and figures of tensorflow-addons (Python 3.11)"
	@echo "make mutate       plant faults in the package and count those that the tests see (an hour)"
	@echo "make results      the tables of docs/ from their commands (ONLY=grid DATA='GRID=folder'; hours)"
	@echo "make results-quick   a nightly part of them, beside the stored figures (DATA as above)"
	@echo "make docs         the pages and the reference as a site in build/docs, warnings as errors"
	@echo "make lock   resolve the lock files anew from pyproject.toml"

env: $(READY)

$(READY): requirements.lock requirements-serving.lock requirements-uv.lock pyproject.toml
	@# The locked TensorFlow has wheels for these alone.
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed; name one with: make env PYTHON=python3.13" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@# Stubs alone: what they require would bind the version of TensorFlow.
	$(UV) pip install --python $(BIN)/python --no-deps --require-hashes -r requirements-serving.lock
	$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# The wheel is built from the sdist, so that both are whole.
test-wheel: $(WHEEL)/.ready
	rm -rf build/dist
	$(UV) build --no-build-isolation --python $(BIN)/python --out-dir build/dist .
	$(UV) pip install --python $(WHEEL)/bin/python --no-deps --reinstall-package yt8m-gat build/dist/*.whl
	$(UV) pip check --python $(WHEEL)/bin/python
	tests/wheel/use_installed.sh $(abspath $(WHEEL))

$(WHEEL)/.ready: requirements.lock | $(READY)
	$(UV) venv --clear --python $(BIN)/python $(WHEEL)
	$(UV) pip install --python $(WHEEL)/bin/python --compile-bytecode --require-hashes -r requirements.lock
	touch $@

test-beam: $(BEAM)/.ready
	$(BEAM)/bin/python -m pytest tests/prediction/test_beam.py tests/extraction/test_extraction_beam.py

$(BEAM)/.ready: requirements-beam.lock pyproject.toml | $(READY)
	$(UV) venv --clear --python $(BIN)/python $(BEAM)
	$(UV) pip install --python $(BEAM)/bin/python --compile-bytecode --require-hashes -r requirements-beam.lock
	$(UV) pip install --python $(BEAM)/bin/python --no-deps --no-build-isolation --editable .
	touch $@

test-addons: $(READY) $(ADDONS)/.ready
	rm -rf $(ADDONS_DIR)
	$(BIN)/python tests_addons/reference.py --output_dir=$(ADDONS_DIR)
	ADDONS_DIR=$(ADDONS_DIR) $(ADDONS)/bin/python -m pytest -c tests_addons/pytest.ini tests_addons

$(ADDONS)/.ready: tests_addons/requirements.lock | $(READY)
	$(UV) venv --clear --no-python-downloads --python $(ADDONS_PYTHON) $(ADDONS)
	$(UV) pip install --python $(ADDONS)/bin/python --compile-bytecode --require-hashes -r tests_addons/requirements.lock
	touch $@

docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo "Open build/docs/index.html"

$(DOCS)/.ready: requirements-docs.lock | $(READY)
	$(UV) venv --clear --python $(BIN)/python $(DOCS)
	$(UV) pip install --python $(DOCS)/bin/python --require-hashes -r requirements-docs.lock
	touch $@

# MUTATE="--count=40 --only=losses/" for a part of it.
mutate: $(READY)
	$(BIN)/python tests/mutation/mutate.py $(MUTATE)

# ONLY: tables, separated by commas; DATA: folders of data, NAME=FOLDER, separated by spaces.
results: $(READY)
	$(BIN)/python benchmarks/results.py --only="$(ONLY)" $(foreach folder,$(DATA),--data $(folder))

# A part of the rows, beside the stored figures; under 40 minutes on two cores.
results-quick: $(READY)
	$(BIN)/python benchmarks/results.py --quick --only="$(ONLY)" $(foreach folder,$(DATA),--data $(folder))

demo: $(READY)
	$(BIN)/python -m yt8m_gat demo --output_dir=$(DEMO_DIR)

LOCK = $(UV) pip compile --generate-hashes --no-header --python-version 3.11
lock: $(READY)
	$(LOCK) --universal --upgrade --extra dev pyproject.toml -o requirements.lock
	$(LOCK) --universal --upgrade --extra dev --extra beam pyproject.toml -o requirements-beam.lock
	echo tensorflow-serving-api | $(LOCK) --universal --upgrade --no-deps --no-annotate - -o requirements-serving.lock
	$(LOCK) --universal --upgrade requirements-docs.in -o requirements-docs.lock
	$(LOCK) --upgrade tests_addons/requirements.in -o tests_addons/requirements.lock

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache build *.egg-info
