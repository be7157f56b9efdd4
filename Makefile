# The single entry point, for people and for CI. `make demo` and `make test` need nothing but Python 3.12 and a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-slow check docs format clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || { \
	  echo "vae_pyro needs Python 3.12 or later, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1); install one and run: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

DEMO ?= runs/demo
demo: install
	$(BIN)/vae-pyro fit digits --likelihood discretized_logistic:levels=17 --latent-dim 8 --batch-size 64 --epochs 150 \
	  --set schedule=cosine --set kl_warmup=20 --set patience=30 --out $(DEMO) --overwrite
	$(BIN)/vae-pyro evaluate $(DEMO)
	$(BIN)/vae-pyro plot $(DEMO)
	$(BIN)/vae-pyro report $(DEMO)

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile  # two workers, a thread each

test-slow: install
	$(BIN)/python -m pytest -m slow

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache docs/_build docs/reference/generated
