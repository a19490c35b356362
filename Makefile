# make demo   the first result, in output/
# make test   every test
# make accept the long acceptance runs
# make exercises   the students' copies and the tutor's kit, from the exercises' sources
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test accept check lint exercises clean install

demo: install
	$(BIN)/safeerase demo

test: install
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

accept: install
	$(BIN)/python -m pytest acceptance -x

check: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile tests -m "not slow"

exercises: install
	$(BIN)/python tools/exercises.py build

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "safeerase-lite needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) output runs .pytest_cache .ruff_cache .hypothesis
