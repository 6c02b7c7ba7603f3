# One entry for everything a person does with this repository. `make demo` is the place to start.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench proof clean

help: ## show the targets
	@awk -F': ## ' '/^[a-z]+: ## /{printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install everything into .venv (idempotent)
	@scripts/bootstrap

demo: ## set up, then play every story of a transfer with real SIP parties
	@scripts/bootstrap
	@.venv/bin/baton demo

test: ## set up, lint, run all tests; coverage must reach the floor (PYTEST_ARGS: some tests, not measured)
	@scripts/bootstrap
	@$(MAKE) lint
	@.venv/bin/pytest -n 2 --dist worksteal $(or $(PYTEST_ARGS),--cov --cov-report=)

lint: ## ruff, format, strict mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

bench: ## set up, run the project's own benchmark
	@scripts/bootstrap
	@.venv/bin/python -m bench

proof: ## a million simulated transfers, 300,000 messages that mean harm (PROOF_ARGS: --seed N, --fuzz N, --sanitize)
	@scripts/bootstrap
	@.venv/bin/python -m tests.proof $(PROOF_ARGS)

clean: ## remove what tests and builds leave; .venv stays
	@rm -rf build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
