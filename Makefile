# `make demo` and `make test` do everything, from nothing.
VENV := .venv
PYTHON := $(VENV)/bin/python
# The exact versions that are tested, so that pip need not search.
PIP := $(PYTHON) -m pip install -q -c constraints.txt
PYTEST := $(PYTHON) -m pytest -n auto --dist loadscope

.PHONY: demo install test test-fast soak constraints lint clean

demo: $(VENV)/installed
	$(PYTHON) -m datasets.synthetic_ogi --data_dir=data --name=demo
	$(PYTHON) -m fume_jax.main --config=demo --workdir=runs/demo

install: $(VENV)/installed

test: lint
	$(PYTEST)

test-fast: lint
	$(PYTEST) -m "not slow and not soak"

# Slow by nature: damaged files, kills, full disks, every preset trained. Prints a table of what was tried.
soak: $(VENV)/installed-tests
	$(PYTHON) -m pytest -m soak --durations=0 -v

lint: $(VENV)/installed-tests
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# Resolves setup.cfg anew in an empty environment; run the tests before committing what it writes.
constraints:
	rm -rf build/constraints && python3 -m venv build/constraints
	build/constraints/bin/pip install -q -e ".[tests]"
	build/constraints/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	python3 -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/installed-tests: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e ".[tests]"
	touch $@ $(VENV)/installed
