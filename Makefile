# `make demo` and `make test` need nothing but Python 3.11 or later: each makes the environment it uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pip makes bytecode with one core, this with all; some libraries hold files that are no Python 3.
QUIETLY := --quiet --disable-pip-version-check --no-compile
COMPILE = $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib mancs_jax || true

.PHONY: demo test test-user-flags lint docs clean

demo: $(VENV)/installed
	$(BIN)/mancs prepare-data --dataset=walkers --root=data
	$(BIN)/mancs train --config=walkers --workdir=workdirs/walkers

test: $(VENV)/installed-for-tests
	$(BIN)/python -m pytest

# Other tests are compiled without optimisations, for speed: see conftest.py.
test-user-flags: $(VENV)/installed-for-tests
	MANCS_USER_FLAGS=1 $(BIN)/python -m pytest -m quick
	MANCS_USER_FLAGS=1 $(BIN)/python -m pytest tests/test_forward.py tests/test_checkpoint.py
	MANCS_USER_FLAGS=1 $(BIN)/python -m pytest tests/test_step.py -k "equation_11 or loss_falls or any_number or accumulated"

lint: $(VENV)/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/codespell

# Writes the tables of scores and the badges, then the site, build/site/index.html. A broken link or an unresolved name fails.
# MkDocs counts no warning that --quiet hides, so it is not quiet.
docs: $(VENV)/installed-for-docs
	$(BIN)/python docs/tools/score_tables.py
	$(BIN)/python docs/tools/badges.py
	$(BIN)/python docs/tools/gather.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(QUIETLY) -r requirements.txt
	$(COMPILE)
	touch $@

$(VENV)/installed-for-tests: requirements-dev.txt examples/tracking/requirements.txt $(VENV)/installed
	$(BIN)/python -m pip install $(QUIETLY) -r requirements-dev.txt
	$(BIN)/python -m pip install $(QUIETLY) --no-deps -r examples/tracking/requirements.txt
	$(COMPILE)
	touch $@

$(VENV)/installed-for-docs: requirements-docs.txt $(VENV)/installed
	$(BIN)/python -m pip install $(QUIETLY) -r requirements-docs.txt
	$(COMPILE)
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .jax_cache
