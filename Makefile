# Does all the set-up on a machine with nothing but Python: a virtual environment, the install, the run.

PYTHON ?= python3
VENV ?= .venv
KERNELS = setup.py $(wildcard vtg/r2/kernels/*)

.PHONY: demo test lint venv

demo: $(VENV)/installed-vtg
	$(VENV)/bin/vtg demo

test: $(VENV)/installed-tests
	$(VENV)/bin/python -m pytest

lint: $(VENV)/installed-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

venv: $(VENV)/bin/python

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The marks are files, so that an environment is made again only when what it is made from changes.
$(VENV)/installed-vtg: pyproject.toml $(KERNELS) | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/installed-tests: pyproject.toml $(KERNELS) | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@
