# make demo: install into .venv and run a first sweep; make test: install and run the tests.
# make test-slow: those that take minutes each; make docs: the site, in site/.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo test test-slow lint docs install

demo: install
	$(BIN)/python sweep.py -cn=gph_demo --workers=2
	$(BIN)/python -m analysis outputs/dln/gph_demo --y test_loss --by model.gamma \
	    -o outputs/dln/gph_demo/test_loss.png

test: install
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m long

docs: install
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(VENV)/.installed

# torch first and pinned, so that no other package pulls in a build of its own choice.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
