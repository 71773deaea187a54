# Every target does its own set-up in .venv. Nothing is needed but python3 (3.11 or later) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint bench lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## the environment in .venv, with .venv/bin/clipkeep

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "clipkeep needs Python 3.11 or later; say which with PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: $(READY) ## the main job on this machine: real video in, kept, played back, lapsed, swept
	@$(BIN)/clipkeep demo $(ARGS)

test: $(READY) ## set-up and all tests, 10 minutes on two cores (ARGS=... goes to pytest, TEST_WORKERS=1: one after the other)
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal $(ARGS)

test-fast: $(READY) ## all tests but those with real processes
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m 'not e2e' $(ARGS)

lint: $(READY) ## ruff and mypy, strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY) ## the short bench: Clipkeep beside the peers that are installed, under 5 minutes
	@$(BIN)/clipkeep bench compare --short --output bench-results/short.json $(ARGS)
	@$(BIN)/clipkeep bench report bench-results/short.json --output bench-results/short.html

lock: ## write constraints.txt anew from the newest versions that pyproject.toml allows
	@rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@{ echo "# What was tested, written by 'make lock'. A fresh install gives exactly these."; \
	   .venv-lock/bin/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools; } > constraints.txt
	@rm -rf .venv-lock

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
