# demo: set up, build code_mc with the embedded policy, train that policy on the datasets and measure every model under every
# context, and open the report where there is a screen.  test: set up and run the tests.
# docs: build the documentation into site/, strictly.
# reproduce: ten seeds, the reversed arm, and best-of-4 by a reward that pays for hacks; long (docs/recipes/code_mc_reproduce.md).
# check: types, lint, format.  coverage: the tests, and which lines and branches they ran.  bench: the measurements of benchmarks/.  tiny: train the embedded policy again.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo reproduce test coverage check bench docs tiny bank schema clean sandbox

demo: $(VENV)/.local
	$(BIN)/recontext build recipe=code_mc
	$(BIN)/recontext train recipe=code_mc_effect workers=2
	$(BIN)/recontext evaluate recipe=code_mc_effect open=true

reproduce: $(VENV)/.local
	@set -e; for recipe in code_mc_reproduce code_mc_best_of_4; do \
	  $(BIN)/recontext train recipe=$$recipe workers=2; $(BIN)/recontext evaluate recipe=$$recipe; done

test: $(VENV)/.dev sandbox
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

coverage: $(VENV)/.dev sandbox
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder --cov --cov-report=term

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# These run as parts of benchmarks/sampling.py.
IN_SAMPLING := $(addprefix benchmarks/, kills.py store.py prefix.py)

bench: $(VENV)/.dev sandbox
	@missed=; for file in $(filter-out $(IN_SAMPLING), $(wildcard benchmarks/[a-z]*.py)); do \
	  echo "== $$file"; PYTHONPATH=. $(BIN)/python $$file || missed="$$missed $$file"; done; \
	  [ -z "$$missed" ] || { echo "ended with an error or missed a limit:$$missed"; exit 1; }

docs: $(VENV)/.docs
	$(BIN)/properdocs build --strict

tiny: $(VENV)/.dev
	$(BIN)/python scripts/make_tiny.py

bank: $(VENV)/.dev
	$(BIN)/python scripts/make_bank.py

schema: $(VENV)/.dev
	$(BIN)/python scripts/make_schema.py
	$(BIN)/python scripts/make_options.py
	$(BIN)/python scripts/make_api.py

clean:
	rm -rf $(VENV) dist build site runs replies cache .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than Python 3.11; name a newer one with make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.base: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) -e '.[docs]'
	touch $@

# torch first, by its exact version: any looser requirement may fetch gigabytes of GPU libraries.
$(VENV)/.local: $(VENV)/.base
	$(PIP) torch==2.13.0
	$(PIP) -e '.[local]'
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) torch==2.13.0
	$(PIP) -e '.[local,docs,dev]'
	touch $(VENV)/.docs $(VENV)/.local $@

# Only code that was not written here needs a sandbox; without one the tests that run such code say that they skip.
sandbox:
	@command -v bwrap >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq bubblewrap >/dev/null; } \
	  || echo "no bubblewrap here (apt-get install bubblewrap): the tests that run code in the sandbox are skipped"
