# The two commands of the README are `make demo` and `make test`; both make the environment they need.
PYTHON ?= python3
VENV := .venv
# The certificates that the machine trusts, as pip uses them.
UV = $(BIN)/uv --quiet --system-certs
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_DIR ?= runs/demo

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help env lint test demo lock clean

help:
	@echo "make env    make .venv from requirements.lock"
	@echo "make demo   train, attack, evaluate and export a GAT on a generated sample"
	@echo "make test   lint, import directions, and all tests"
	@echo "make lock   resolve requirements.lock anew from pyproject.toml"

env: $(READY)

$(READY): requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make env PYTHON=python3.12" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

demo: $(READY)
	$(BIN)/python -m yt8m_gat.demo --output_dir=$(DEMO_DIR)

lock: $(READY)
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --upgrade -o requirements.lock

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache build *.egg-info
