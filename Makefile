# Everything that is run on this project, by people and by CI alike. `make` lists it.

PYTHON ?= python3
# Workers of the test run; 0 runs it in one process (for a debugger, or to see output as it comes).
JOBS ?= 2
# Passed on to pytest: make test ARGS='-m "not slow" tests/store'
ARGS ?=
# How long `make fuzz` fuzzes each target (`make soak`: takes ten minutes, unless told), and how long all targets, and a
# soak, take within `make check`.
SECONDS ?= 60
CHECK_SECONDS ?= 20
CHECK_SOAK_SECONDS ?= 60

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNEL := $(wildcard setup.py src/respaldo/kernel/*.c src/respaldo/kernel/*.h)

.DEFAULT_GOAL := help
.PHONY: help venv build test lint format types imports check demo bench stages growth looking fuzz fuzz-long model soak clean

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Makes .venv with the project, its C kernel and the tools (PYTHON=python3)

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no $(PYTHON); install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $$($(PYTHON) -V) is too old; name a Python >= 3.11: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Each change of the kernel's source is compiled again by the same rule.
$(STAMP): pyproject.toml $(KERNEL) | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

build: $(STAMP) ## Builds the wheel into dist/
	rm -rf build
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir dist .
	@ls -1 dist

test: $(STAMP) ## Runs all tests (JOBS=2 ARGS='-m "not slow"')
	$(BIN)/pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: $(STAMP) ## Checks style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## Formats the source and mends what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## Checks types
	$(BIN)/mypy

imports: $(STAMP) ## Checks that layers import only downward
	$(BIN)/lint-imports --no-logo

check: ## Does all that CI does: lint, types, imports, test, a short fuzz, a short soak
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory imports
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory fuzz TOTAL=$(CHECK_SECONDS)
	@$(MAKE) --no-print-directory soak SECONDS=$(CHECK_SOAK_SECONDS)

demo: $(STAMP) ## Backs up, damages, restores and compares, before your eyes
	$(BIN)/python -m benches.demo

bench: $(STAMP) ## Measures all beside its peers and limits (ARGS="--quick": a few minutes)
	$(BIN)/python -m benches.main $(ARGS)

stages: $(STAMP) ## Measures the stages of the data's road one by one
	$(BIN)/pytest --benchmark-enable --benchmark-only -p no:xdist $(ARGS) benches

growth: $(STAMP) ## Measures how cost grows, a cold cache, a far storage (ARGS="--quick")
	$(BIN)/python -m benches.growth $(ARGS)

looking: $(STAMP) ## Measures find, history, diff, dump, export over a hundred snapshots (ARGS="--quick")
	$(BIN)/python -m benches.looking $(ARGS)

fuzz: $(STAMP) ## Fuzzes every parser and the kernel (SECONDS=60 for each; ARGS="--only tree")
	$(BIN)/python -m tests.fuzz $(if $(TOTAL),--all $(TOTAL),--each $(SECONDS)) $(ARGS)

fuzz-long: ## Fuzzes every parser and the kernel for an hour each
	@$(MAKE) --no-print-directory fuzz SECONDS=3600

model: $(STAMP) ## Goes through every state of the protocol's model, the large ones too (minutes)
	$(BIN)/python -m tests.protocol.model.scopes

soak: $(STAMP) ## Runs commands of all kinds at once, stopped and killed at random (SECONDS=600)
	$(BIN)/python -m tests.protocol.soak $(if $(filter file,$(origin SECONDS)),600,$(SECONDS))

clean: ## Removes what was built, .venv too
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .import_linter_cache
	find . -name .git -prune -o -name __pycache__ -prune -exec rm -rf {} +
	find src -name '*.so' -delete
