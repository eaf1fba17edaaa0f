# make help shows what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python that is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$python && break; done)
VENV := .venv
WORKERS ?= 2
PYTEST_ARGS ?=
# Many tests wait for processes of their own.
TEST_PROCESSES ?= 3
# Tests start hundreds of processes, and each would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: lock help install dev train test test-kernels chaos lint docs clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 21

install: $(VENV)/.installed ## make .venv and install chainrule into it

# One after the other they take twice as long; in this order, each is newer than what it needs.
dev: $(VENV)/bin/pip ## install what test, lint and docs need, in one go
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[sklearn,test,lint,docs]'
	@touch $(VENV)/.installed $(VENV)/.installed-test $(VENV)/.installed-lint $(VENV)/.installed-docs

train: install ## train the four-layer network on real data, with a server and two workers on this machine
	$(VENV)/bin/chainrule train examples/four_layer.toml --workers $(WORKERS)

test: $(VENV)/.installed-test ## install what the tests need and run them (PYTEST_ARGS="-k name" chooses)
	$(VENV)/bin/python -P -m pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

test-kernels: $(VENV)/.installed-test ## run the tests that compare floats under OpenBLAS's other kernels
	$(VENV)/bin/python -P tools/kernels.py -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

chaos: $(VENV)/.installed-test ## kill, stop and cut off processes for CHAOS_S seconds (600); every hash must stay
	$(VENV)/bin/python -m tests.cluster.chaos

lint: $(VENV)/.installed-lint ## ruff, mypy --strict, and who may import whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

docs: $(VENV)/.installed-docs ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

LOCK = $(VENV)/bin/uv pip compile --quiet --upgrade --generate-hashes --no-annotate --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock"
lock: install ## renew what the container image is made of: the newest versions, with hashes
	$(VENV)/bin/pip install --quiet --disable-pip-version-check uv
	$(LOCK) --extra image -o deploy/image/requirements.lock pyproject.toml
	echo hatchling | $(LOCK) -o deploy/image/build.lock -

clean: ## remove .venv and every cache
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info

$(VENV)/bin/pip:
	@[ -n "$(PYTHON)" ] || { echo "error: chainrule needs Python 3.11 or newer; install it, or say make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) tools/make_venv.py $(VENV)

$(VENV)/.installed: pyproject.toml $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[sklearn]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/.installed-lint: $(VENV)/.installed-test
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[lint]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-test
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@
