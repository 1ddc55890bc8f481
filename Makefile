# Every target sets up .venv itself with the packages it needs; `make help` lists them.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
PY := .venv/bin/python

# compiled programs are kept between runs: tests and demo compile for longer than they compute
export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/.jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0.2
export MPLBACKEND ?= Agg
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint notebooks bench docs clean
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: .venv/installed-demo ## run the demo; results go to demo_output/
	$(PY) -m flowmcmc

test: .venv/installed-test ## run the tests on two processes, all but the slow ones
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(PY) -m pytest -n 2 --dist loadfile -m "not slow" $(PYTEST_OPTIONS)

test-slow: .venv/installed-test ## run the rest: whole runs, calibration, other processes and libraries
	$(PY) -m pytest -n 2 --dist loadfile -m slow $(PYTEST_OPTIONS)

lint: .venv/installed-lint ## ruff (rules and format), pyright
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

NOTEBOOKS := $(wildcard notebooks/*.py)
notebooks: .venv/installed-notebooks ## run every notebooks/*.py into an executed .ipynb beside it
	$(if $(NOTEBOOKS),PYTHONWARNINGS='ignore:IProgress not found' MPLBACKEND=module://matplotlib_inline.backend_inline $(PY) -m jupytext --to ipynb --set-kernel python3 --execute $(NOTEBOOKS),@echo "no notebooks/*.py yet")

BENCHMARKS := $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))
bench: .venv/installed-test ## run every benchmarks/*.py
	@set -e; for file in $(BENCHMARKS); do echo "$(PY) $$file"; $(PY) "$$file"; done

docs: .venv/installed-docs ## build the site from docs/ and the docstrings into site/; warnings are errors
	JAX_PLATFORMS=cpu $(PY) -m sphinx -W --keep-going -q -b html docs site

clean: ## remove the environment and everything generated
	rm -rf .venv .jax_cache .pytest_cache .ruff_cache demo_output site build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# one environment; a stamp per extra, so that `make demo` installs no more than the demo needs
.venv/installed-%: pyproject.toml constraints.txt | .venv/bin/python
	$(PY) -m pip install -q -c constraints.txt -e '.[$*]'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || { \
	  echo "flowmcmc needs Python 3.12 or newer, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make $(or $(firstword $(MAKECMDGOALS)),demo) PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up .venv (once; about a minute)"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
