# Everything a developer or a newcomer runs. `make help` lists it.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Python compiles what is imported when it is; compiling all of it here would double the wait.
INSTALL := $(PY) -m pip install --no-compile --progress-bar on
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
TRITON := nvidia-pytriton==0.7.0

.PHONY: help doctor setup up down status demo models proto format check test chaos-ledger clean

help:  ## lists every target
	@awk 'BEGIN {FS = ":.*  ## "} /^[a-z%<>-]+:.*  ## / {sub(/%/, "<name>", $$1); printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

doctor:  ## says what this machine lacks, and the line that mends it
	@$(PYTHON) penstock/cli/doctor.py

# Preparing the source tree ------------------------------------------------------------------------

.PHONY: fit
fit:
	@told=$$($(PYTHON) penstock/cli/doctor.py) || { echo "$$told"; exit 1; }

setup: $(VENV)/.installed $(VENV)/.triton | fit  ## prepares .venv: the pinned packages and Triton

$(VENV)/bin/python: | fit
	@echo "== making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# torch goes first and alone: any other spelling can pull gigabytes of GPU packages where the CPU
# build is meant. TORCH_INDEX_URL chooses the build, as PyTorch's installation page describes. What it
# depends on comes with the rest, at the pinned versions.
$(VENV)/.torch: constraints.txt | $(VENV)/bin/python
	@echo "== installing $(TORCH)"
	@$(INSTALL) --no-deps $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) $(TORCH)
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.torch
	@echo "== installing the pinned packages and this source tree"
	@$(INSTALL) -c constraints.txt --config-settings editable_mode=compat -e '.[dev]'
	@touch $@

# Triton is a server with a Python wheel around it; it is never imported, so it gets a folder of its
# own, without the wheel's dependencies.
$(VENV)/.triton: | $(VENV)/bin/python
	@echo "== installing Triton ($(TRITON))"
	@$(INSTALL) --no-deps --upgrade --target $(VENV)/triton $(TRITON)
	@touch $@

# Running ------------------------------------------------------------------------------------------

up: setup  ## starts the local cluster and keeps it; Ctrl-C drains it
	@$(VENV)/bin/penstock up

down: setup  ## stops the cluster that `make up` started
	@$(VENV)/bin/penstock down

status: setup  ## shows what the local cluster runs
	@$(VENV)/bin/penstock status

demo: setup  ## starts a private cluster, calls every model, prints the answers, leaves nothing running
	@$(PY) -m examples.demo

models: setup  ## builds the demo models, seconds each, into .penstock/artifacts
	@$(PY) -m workers.demo_models --out .penstock/artifacts

# Developing ---------------------------------------------------------------------------------------

proto: setup  ## generates the stubs from protos/ again
	@$(PY) -m protos.generate

format: setup  ## formats the code and sorts its imports
	@$(VENV)/bin/ruff check --fix --quiet .
	@$(VENV)/bin/ruff format .

check: setup  ## format, lint, types, imports, file sizes, contracts; then fails on a dirty tree
	@echo "== format and lint"
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@echo "== file sizes"
	@$(PY) tests/file_sizes.py
	@echo "== imports point down"
	@$(VENV)/bin/lint-imports
	@echo "== contracts"
	@$(PY) -m protos.generate --check
	@$(PY) -m protos.lint
	@echo "== types"
	@$(VENV)/bin/mypy
	@echo "== a clean tree"
	@if [ -e .git ]; then git status --porcelain; test -z "$$(git status --porcelain)"; fi

test: setup  ## runs all tests
	@$(PY) -m pytest

test-%: setup  ## runs the tests of one folder, such as make test-gateway
	@$(PY) -m pytest tests/$(subst -,/,$*)

bench-%: setup  ## runs benchmarks/<name>.py and prints its figures as JSON last
	@$(PY) -m benchmarks.$(subst -,_,$*)

chaos-ledger: setup  ## kills gateways and Redis under load for 30 s and compares every bill
	@$(PY) -m tests.gateway.ledger.chaos

clean:  ## removes what is built: caches, models, the virtual environment
	@$(if $(wildcard $(VENV)/bin/penstock),$(VENV)/bin/penstock down --quiet || true)
	@rm -rf $(VENV) .penstock .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
