# `make demo` and `make test` do everything, from nothing.
VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: demo install test test-fast lint clean

demo: $(VENV)/installed
	$(PYTHON) -m datasets.synthetic_ogi --data_dir=data --name=demo
	$(PYTHON) -m fume_jax.main --config=configs/demo.py --workdir=runs/demo

install: $(VENV)/installed

test: lint
	$(PYTHON) -m pytest -n auto --dist loadscope

test-fast: lint
	$(PYTHON) -m pytest -n auto --dist loadscope -m "not slow"

lint: $(VENV)/installed-tests
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	python3 -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PYTHON) -m pip install -q -e .
	touch $@

$(VENV)/installed-tests: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PYTHON) -m pip install -q -e ".[tests]"
	touch $@ $(VENV)/installed
