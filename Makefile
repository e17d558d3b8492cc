# Everything a newcomer needs: `make up` runs it, `make test` tests it. Both do their own set-up.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
TOOLS := .tools
UV := $(TOOLS)/bin/uv
BIN := .venv/bin
PYTEST_ARGS ?=
WORKERS ?= 3
export UV_PYTHON_DOWNLOADS := never

.PHONY: help up test check fmt bench docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: .venv/.runtime ## Run panel, broker, agent with Xray on this machine (ARGS="--panel-port 8443 …")
	@exec $(BIN)/xfleet up $(ARGS)

test: .venv/.ready ## Run all tests (PYTEST_ARGS="--require-real" fails where an optional server is missing)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

check: .venv/.ready ## Format, lint, types, import rules, then all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(MAKE) test

fmt: .venv/.ready ## Format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.ready ## Measure; the figures go to docs/benchmarks.md
	$(BIN)/pytest -n 0 -s tests/bench $(PYTEST_ARGS)

docs: .venv/.ready ## Write the generated pages of docs/ anew
	$(BIN)/python tools/build_pins.py
	$(BIN)/python tools/build_docs.py

clean: ## Remove what `make` has made; data directories stay
	rm -rf .venv $(TOOLS) .ruff_cache .import_linter_cache .hypothesis

# The environment, exactly as uv.lock has it; to run it, the development tools are not needed.
.venv/.runtime: uv.lock pyproject.toml $(UV)
	$(UV) sync --frozen --all-extras --no-dev --inexact --quiet --python $(TOOLS)/bin/python
	@touch $@

.venv/.ready: uv.lock pyproject.toml $(UV)
	$(UV) sync --frozen --all-extras --quiet --python $(TOOLS)/bin/python
	@touch $@ .venv/.runtime

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "xfleet needs Python 3.11 or newer as $(PYTHON). On Debian or Ubuntu: apt install -y git make python3-venv" >&2; \
	  echo "With another Python: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv is missing. On Debian or Ubuntu: apt install -y git make python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'
