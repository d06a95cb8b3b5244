# Every target sets up what it needs: `make demo` works in a fresh clone.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/
INSTALLED := $(VENV)/.installed

# One thread per process: the tests run in two processes, and results do not depend on how a sum was split.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(RUN)python -m pytest

BENCHMARKS := $(sort $(wildcard experiments/benchmarks/*.py))

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow coverage check bench docs sbom hashes format clean distclean

help:
	@echo "make demo       the default recipe on the bundled data; table, report and artifact in demo/"
	@echo "make test       the default test suite, two processes"
	@echo "make test-slow  the tests marked slow, two processes"
	@echo "make coverage   the default suite with branch coverage; pages in build/coverage/html"
	@echo "make check      formatting, lint, types and floors"
	@echo "make bench      every script in experiments/benchmarks"
	@echo "make docs       examples in README, docs and docstrings; links and glossary"
	@echo "make sbom       what a release is made of, as CycloneDX, in dist/sbom.cdx.json"
	@echo "make hashes     the digests of the pinned files, in constraints-hashes.txt (asks the package index)"
	@echo "make format     put the code into shape"
	@echo "make clean      remove what builds, tests and demo left (distclean: .venv too)"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tsdistill needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# torch comes first and pinned: resolved on its own it may bring gigabytes for an accelerator that is not there.
$(INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing tsdistill and its tools into $(VENV) (some minutes the first time) ..."
	@$(RUN)python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@$(RUN)python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[dev,parquet,postgres]'
	@touch $@

demo: $(INSTALLED)
	$(RUN)tsdistill run --out demo

test: $(INSTALLED)
	$(PYTEST) -n 2 -m "not slow"

test-slow: $(INSTALLED)
	$(PYTEST) -n 2 -m slow

coverage: $(INSTALLED)
	mkdir -p build/coverage
	$(PYTEST) -n 2 -m "not slow" --cov --cov-report=term --cov-report=html

check: $(INSTALLED)
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy
	$(RUN)lint-imports
	$(RUN)python packages/hashes.py --check

bench: $(INSTALLED)
ifeq ($(BENCHMARKS),)
	@echo "experiments/benchmarks holds no script yet: nothing was measured."
else
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(RUN)python $$script; done
endif

docs: $(INSTALLED)
	$(PYTEST) README.md docs tsdistill tests/test_docs.py

# ENVIRONMENT is the interpreter whose packages are listed: that of a wheel in an empty environment for a release.
ENVIRONMENT ?= $(VENV)/bin/python
SBOM ?= dist/sbom.cdx.json

sbom: $(INSTALLED)
	@mkdir -p $(dir $(SBOM))
	$(RUN)cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
		--output-format JSON --output-file $(SBOM) $(ENVIRONMENT)

hashes: $(INSTALLED)
	$(RUN)python packages/hashes.py

format: $(INSTALLED)
	$(RUN)ruff check --fix .
	$(RUN)ruff format .

clean:
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find tsdistill tests datasets experiments -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
