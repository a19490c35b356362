# make demo        the first result, in output/
# make check       before every commit: ruff and the unit tests, about a minute
# make test        before a review: types, unit and integration tests, notebooks, browser; ten to twenty minutes
# make accept      everything, with the nightly tests
# make slides      the slides of the 90-minute class, from the lessons: output/slides.html
# make install     the virtual environment alone, in .venv
# make types       pyright on data, objectives, metrics and config
# make page        the page that needs no install, in output/page; npm brings its runtime once
# make exercises   the students' copies and the tutor's kit, from the exercises' sources
# make book        the site, in output/book: lessons, exercises, docs, results, API, glossary
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST = $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
# The integration tests run the other lessons in less time; "make accept" runs all as they are.
LESSONS = notebooks/0[0123678]_*.ipynb

.PHONY: demo check test accept types lint exercises book page slides install clean

demo: install
	$(BIN)/safeerase demo

check: lint
	$(PYTEST) -n 2 tests/unit

test: lint types
	$(PYTEST) -n 3 tests/browser $(LESSONS) tests/integration tests/unit

accept: lint types
	$(PYTEST) -n 3

types: install
	$(BIN)/pyright --pythonpath $(BIN)/python

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

page: install
	$(BIN)/python tools/build_page.py

exercises: install
	$(BIN)/python tools/exercises.py build

book: install
	$(BIN)/python tools/build_book.py

slides: install
	$(BIN)/python tools/slides.py

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "safeerase-lite needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) output runs .pytest_cache .ruff_cache .hypothesis
