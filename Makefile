# `make demo` and `make test` do all of their own set-up: a venv in the checkout, dependencies under constraints.txt, the job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
STAMP := $(VENV)/.installed-

.PHONY: demo test lint clean

demo: $(STAMP)report  ## train a one-step model on digits, compare it with flow matching, write a picture and a report
	$(BIN)/anystep train digits-shortcut --out $(DEMO)/shortcut --resume
	$(BIN)/anystep train digits-flow_matching --out $(DEMO)/flow_matching --resume
	$(BIN)/anystep evaluate $(DEMO)/shortcut --steps 1 2 4 8 32 128 --json $(DEMO)/shortcut.json
	$(BIN)/anystep evaluate $(DEMO)/flow_matching --steps 1 2 4 8 32 128 --json $(DEMO)/flow_matching.json
	$(BIN)/anystep report $(DEMO)/shortcut $(DEMO)/flow_matching --out $(DEMO)/report

test: $(STAMP)dev  ## linters, types, layers, and every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# The stamp is newer than what it was installed from; a changed pyproject or constraint installs again.
$(STAMP)%: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "anystep needs Python 3.11 or newer, and $(PYTHON) is not: try make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "cannot make $(VENV): $(PYTHON) needs venv and ensurepip (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

clean:  ## the environment and caches; runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
