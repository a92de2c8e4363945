# Three commands for a fresh machine with Python 3.11 or newer:
#   make bench   compare optimizers on the UCI digits and write a report
#   make test    run the tests
#   make docs    build the documentation into site/
# Each makes its own virtual environment in .venv and installs what it needs there.
# Tests stand on other processes too (workers, Slurm, a browser): one that fails is tried once
# more, and the summary counts it as rerun.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: bench test test-slow lint docs clean

bench: $(VENV)/.package
	$(BIN)/optiscope bench quickstart

test: $(VENV)/.tests
	$(BIN)/python -m compileall -q src  # dozens of child processes import it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --reruns 1

test-slow: $(VENV)/.tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --timeout 7200

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.tests
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "optiscope needs Python 3.11 or newer, got " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.package: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[optimizers]'
	touch $@

$(VENV)/.tests: $(VENV)/.package requirements-oracles.txt
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps --requirement requirements-oracles.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
