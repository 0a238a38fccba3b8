# Every target sets up what it needs by itself; `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PY := .venv/bin/python

.PHONY: help setup demo postgres postgres-stop test test-fast lint types format bench eval docs embedder model lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## Make .venv with the pinned packages (every other target does this too)
	@scripts/setup.sh

demo: setup ## Route varied requests under each objective and show the money saved
	@.venv/bin/tinydancer demo

postgres: setup ## Start a private PostgreSQL in .pg with the extension and example agents
	@$(PY) scripts/postgres.py start

postgres-stop: ## Stop it; its tables stay in .pg
	@if [ -x $(PY) ]; then $(PY) scripts/postgres.py stop; fi

test: lint types ## Everything that has to pass: lint, types, tests, coverage of the pure floors
	@scripts/test.sh

test-fast: setup ## The tests that take no more than a moment, without coverage
	@$(PY) -m pytest -q -m "not slow"

lint: setup ## Check style and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: setup ## Check types (mypy, strict)
	@$(PY) -m mypy

format: setup ## Repair what style and formatting can repair by themselves
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: setup ## Measure speed and memory, as medians
	@$(PY) bench/run.py

eval: setup ## Evaluate the quality model on ../shared/data, from seed (EVAL=--quick: in 4 minutes)
	@$(PY) scripts/evaluate.py $(EVAL)

docs: setup ## Write docs/reference/ anew from the code
	@$(PY) scripts/generate_reference.py

embedder: setup ## Build the token table of the static embedder anew (downloads the teacher)
	@$(PY) scripts/build_static_embedder.py

model: setup ## Train the shipped quality model on ../shared/data anew, and write its card
	@$(PY) scripts/train_quality_model.py $(MODEL)
	@$(PY) scripts/model_card.py

lock: setup ## Pin the dependencies of pyproject.toml anew (downloads uv)
	@scripts/lock.sh

clean: ## Remove .venv and everything else that can be made again
	@rm -rf .venv .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	@find src tests scripts bench -name __pycache__ -type d -prune -exec rm -rf {} +
