# Two commands on a fresh machine: `make lab` to learn, `make test` to check that everything works.
# Say another interpreter with `make lab PYTHON=python3.12`; the README has the same lines without make.

PYTHON ?= python3
VENV ?= .venv
LESSONS ?=
LAB_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
GPU_ARGS ?=

ifeq ($(OS),Windows_NT)
  BIN := $(VENV)/Scripts
else
  BIN := $(VENV)/bin
endif
PY := $(BIN)/python
ON_PYTHON = $(shell $(PYTHON) -c 'import sys; print(".".join(map(str, sys.version_info[:3])))' 2>&1 | tail -n 1)
NO_TORCH = { echo 'If pip found no torch above: PyTorch is built for Python 3.11 to 3.14, and this is $(ON_PYTHON).' \
  'Remove $(VENV) and name another one: make $(MAKECMDGOALS) PYTHON=python3.13'; exit 1; }

.PHONY: help lab test notebooks bench test-install test-browser test-gpu format clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

lab: $(VENV)/.lab  ## set up, copy lessons that are not in work/ yet, open JupyterLab
	$(PY) -m ddpm_course.lab copy work
	$(PY) -m ddpm_course.lab work/00_start_here.ipynb $(LAB_ARGS)

test: $(VENV)/.test  ## set up, run every test
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal $(TEST_ARGS)

notebooks: $(VENV)/.test  ## run the sources and build the student edition: make notebooks LESSONS="00 02"
	$(PY) -m ddpm_course.classroom build $(LESSONS)

bench: $(VENV)/.test  ## measure the course beside other packages (two hours): make bench BENCH_ARGS=--short
	$(PY) tests/benchmarks/bench.py $(BENCH_ARGS)

test-install: $(VENV)/.test  ## install in empty environments and test there (slow)
	$(PY) tests/install/run.py

test-browser: $(VENV)/.browser  ## run lessons in JupyterLab in Chromium: make test-browser LESSONS="00 02"
	$(PY) tests/browser/run.py $(LESSONS)

test-gpu:  ## check and time the course on a GPU, in eight minutes, installing nothing: make test-gpu GPU_ARGS="--out gpu.json"
	$(or $(wildcard $(PY)),$(PYTHON)) tests/gpu/run.py $(GPU_ARGS)

format: $(VENV)/.test  ## lay out and lint code and notebooks
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:  ## remove what these commands made, except work/
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +

# A stamp says that an installation is complete; it is made again when the lists of dependencies change.
$(VENV)/.lab: requirements.txt pyproject.toml | $(PY)
	$(PY) -m pip install -r requirements.txt || $(NO_TORCH)
	@touch $@

$(VENV)/.test: requirements.txt pyproject.toml | $(PY)
	$(PY) -m pip install -e '.[test]' -r requirements.txt || $(NO_TORCH)
	@touch $@ $(VENV)/.lab

$(VENV)/.browser: requirements.txt pyproject.toml | $(PY)
	$(PY) -m pip install -e '.[browser]' -r requirements.txt || $(NO_TORCH)
	@touch $@ $(VENV)/.lab

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'The course needs Python 3.11 or newer; $(PYTHON) is: $(ON_PYTHON)'; \
	  echo 'Name the one to use: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; }
	@echo 'Setting up $(VENV). This downloads PyTorch and JupyterLab; the README says how much, and how to take less.'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'On Debian and Ubuntu, venv is a package of its own: apt install python3-venv'; exit 1; }
