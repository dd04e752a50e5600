# Does all the set-up on a machine with nothing but Python: a virtual environment, the install, the run.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= auto
KERNELS = setup.py $(wildcard vtg/r2/kernels/*)

.PHONY: demo test test-lowest lint docs commands venv

demo: $(VENV)/installed-vtg
	$(VENV)/bin/vtg demo

test: $(VENV)/installed-tests
	$(VENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore tests/browser
	$(VENV)/bin/python -m pytest tests/browser # alone: they look at a page within bounds of time

# The lowest versions that pyproject.toml allows, in an environment of their own; by hand.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet "tomli; python_version < '3.11'"
	.venv-lowest/bin/python -m tools.lowest_versions > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet -e '.[test]' -c .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore tests/browser
	.venv-lowest/bin/python -m pytest tests/browser

lint: $(VENV)/installed-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The manual as a site in build/site; a dead link or a broken docstring is an error.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=true $(VENV)/bin/python -m mkdocs build --strict --quiet

# The manual's list of commands, written anew from the command line itself.
commands: $(VENV)/installed-vtg
	$(VENV)/bin/python -m typer vtg.cli.main utils docs --name vtg --title Commands --output docs/commands.md

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

$(VENV)/installed-docs: pyproject.toml $(KERNELS) | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@
