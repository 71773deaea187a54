# Every target does its own set-up in .venv. Nothing is needed but python3 (3.11 or later) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NATIVE := $(VENV)/.native
PLAYERS := tests/players/node_modules/.ready
OPENID := tests/openid/node_modules/.ready
TUS := tests/tus/node_modules/.ready
# What setup.py compiles, and where that goes.
HOT := $(shell sed -n 's/^    "\(.*\.py\)",$$/\1/p' setup.py)
COMPILED := *.so clipkeep_hot.json $(addsuffix *.so,$(sort $(dir $(HOT))))
PURE_TESTS := tests/ingest tests/storage/test_segment.py tests/storage/test_checksums.py
TEST_WORKERS ?= 2
# pytest, and what failed once more, alone.
TESTS := $(BIN)/python -m tests.twice
# The suites start thousands of processes, which would compile all of it anew each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup native pure demo test test-postgres soak test-fast players screenshots lint bench lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(NATIVE) ## the environment in .venv, with .venv/bin/clipkeep, and the hot path compiled if there is a C compiler

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "clipkeep needs Python 3.11 or later; say which with PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --config-settings editable_mode=compat -e '.[test]'
	@touch $@

$(NATIVE): $(READY) setup.py $(HOT)
	@echo "compiling the hot path (half a minute) ..."
	@rm -f $(COMPILED)
	@$(BIN)/python setup.py build_ext --inplace > $(VENV)/native.log 2>&1 || { rm -f $(COMPILED); \
	   echo "it was not compiled, and runs as Python: that takes more CPU ($(VENV)/native.log says why; a C compiler and Python's headers are needed)" >&2; }
	@rm -rf build/temp.* build/lib.* build/ingest build/storage
	@touch $@

native: ## compile the hot path anew, after a change to a module that setup.py names (other targets do so by themselves)
	@rm -f $(NATIVE)
	@$(MAKE) --no-print-directory $(NATIVE)
	@ls ingest/*.so > /dev/null

pure: $(READY) ## run the hot path as Python, until its sources change or `make native`
	@rm -f $(COMPILED)
	@touch $(NATIVE)

demo: $(NATIVE) ## the main job on this machine: real video in, kept, played back, lapsed, swept
	@$(BIN)/clipkeep demo $(ARGS)

# hls.js in two versions, for the tests of players; skipped where there is no npm.
$(PLAYERS): tests/players/package.json tests/players/package-lock.json
	@if command -v npm > /dev/null; then npm ci --prefix tests/players --ignore-scripts --no-audit --no-fund --silent \
	   || echo "hls.js was not installed: the tests of players are skipped" >&2; fi
	@mkdir -p $(dir $@) && touch $@

# A real provider of OpenID Connect, for the tests of log-in from elsewhere; skipped by name where there is no npm.
$(OPENID): tests/openid/package.json tests/openid/package-lock.json
	@if command -v npm > /dev/null; then npm ci --prefix tests/openid --ignore-scripts --no-audit --no-fund --silent \
	   || echo "oidc-provider was not installed: the test with a real provider is skipped" >&2; fi
	@mkdir -p $(dir $@) && touch $@

# The client that most resumable uploads are made with, for their test; skipped by name where there is no npm.
$(TUS): tests/tus/package.json tests/tus/package-lock.json
	@if command -v npm > /dev/null; then npm ci --prefix tests/tus --ignore-scripts --no-audit --no-fund --silent \
	   || echo "tus-js-client was not installed: the test with a real client is skipped" >&2; fi
	@mkdir -p $(dir $@) && touch $@

test: $(NATIVE) $(PLAYERS) $(OPENID) $(TUS) ## set-up and all tests, 55 minutes on two cores (ARGS=... goes to pytest, TEST_WORKERS=1: one after the other)
	@$(TESTS) -n $(TEST_WORKERS) --dist worksteal $(ARGS)
	@if [ -z "$(ARGS)" ] && ls $(COMPILED) > /dev/null 2>&1; then \
	   echo "once more, with the hot path as Python"; \
	   CLIPKEEP_PURE=1 $(TESTS) -n $(TEST_WORKERS) --dist worksteal $(PURE_TESTS); fi

POSTGRES_TESTS ?= tests
test-postgres: $(NATIVE) $(PLAYERS) ## all tests, with every catalog on PostgreSQL (POSTGRES_TESTS=... says which)
	@CLIPKEEP_TEST_CATALOG=postgresql $(TESTS) -n $(TEST_WORKERS) --dist worksteal $(ARGS) $(POSTGRES_TESTS)

soak: $(NATIVE) ## what takes hours: kills, frozen servers, connections that break, the whole suite on PostgreSQL (ARGS="-s tests/soak/test_kills.py": one of them)
	@nice $(BIN)/python -m pytest -m soak $(or $(ARGS),-s tests)
	@if [ -z "$(ARGS)" ]; then CLIPKEEP_TEST_CATALOG=postgresql nice $(BIN)/python -m pytest -m soak -s tests/service/shop; fi
	@if [ -z "$(ARGS)" ]; then nice $(MAKE) --no-print-directory test-postgres; fi

test-fast: $(NATIVE) ## all tests but those with real processes
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m 'not e2e' $(ARGS)

players: $(NATIVE) $(PLAYERS) ## what ffmpeg, VLC, GStreamer, hls.js and Chromium show of each kind of upload: the table of docs/playback.md (ARGS="--only HEVC")
	@$(BIN)/python -m tests.players --output docs/playback.md $(ARGS)

screenshots: $(NATIVE) ## the pictures of docs/pages.md, taken in Chromium of a service that runs
	@$(BIN)/python -m tests.screenshots --output docs/pages

lint: $(READY) ## ruff and mypy, strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(NATIVE) ## the short bench: Clipkeep beside the peers that are installed, under 5 minutes
	@$(BIN)/clipkeep bench compare --short --output bench-results/short.json $(ARGS)
	@$(BIN)/clipkeep bench report bench-results/short.json --output bench-results/short.html

lock: ## write constraints.txt anew from the newest versions that pyproject.toml allows
	@rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@{ echo "# What was tested, written by 'make lock'. A fresh install gives exactly these."; \
	   .venv-lock/bin/python -m pip freeze --all --exclude-editable --exclude pip; } > constraints.txt
	@rm -rf .venv-lock

clean: ## remove .venv, caches and what was compiled
	rm -rf $(VENV) build $(COMPILED) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
