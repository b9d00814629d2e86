# What one does with this repository. `make` alone lists the targets; a fresh Debian or Ubuntu with Python 3.11 needs
# nothing else before `make serve` or `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PORT ?=
CONFIG ?=
WORKERS ?=
SERVE_FLAGS ?=
PYTEST_FLAGS ?=
# COMPILED=1: serve, test and bench run the modules that each frame passes through as machine code.
COMPILED ?=

# The first Python that is new enough.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)

BIN := .venv/bin
INSTALLED := .venv/.installed
# A whole copy of the packages: beside the sources, machine code would hide what is edited. It is found before them, and
# before the folder that a program is started in.
MACHINE_CODE := build/compiled
WITH_MACHINE_CODE := env PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/$(MACHINE_CODE):$(CURDIR)"
READY := $(if $(filter 1,$(COMPILED)),$(MACHINE_CODE)/.made,$(INSTALLED))
WITH_FLAVOUR := $(if $(filter 1,$(COMPILED)),$(WITH_MACHINE_CODE))

# One thread for each step: two OpenMP threads on a busy machine make a step tens of times slower, not faster.
export OMP_NUM_THREADS ?= 1
# Packages that come as source are built with the pinned setuptools too; old and new pip read different variables.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help venv compiled serve test test-slow check format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(INSTALLED) ## make .venv with the pinned packages

compiled: $(MACHINE_CODE)/.made ## compile the gateway's hot modules, for COMPILED=1

serve: $(READY) ## serve the demo model on http://127.0.0.1:8080 (PORT= CONFIG= WORKERS= COMPILED= SERVE_FLAGS=)
	@exec $(WITH_FLAVOUR) $(BIN)/asr serve $(if $(PORT),--port $(PORT)) $(if $(CONFIG),--config "$(CONFIG)") $(if $(WORKERS),--workers $(WORKERS)) $(SERVE_FLAGS)

test: $(READY) ## run the tests that need neither GPU nor network (PYTEST_FLAGS= COMPILED=)
	@exec $(WITH_FLAVOUR) $(BIN)/python -m pytest -q -m "not slow and not gpu and not network" $(PYTEST_FLAGS)

test-slow: $(INSTALLED) ## run the slow tests (PYTEST_FLAGS=)
	@exec $(BIN)/python -m pytest -q -m "slow and not gpu and not network" $(PYTEST_FLAGS)

check: $(INSTALLED) ## lint, format, types, import contracts
	@failed=0
	$(BIN)/ruff check . || failed=1
	$(BIN)/ruff format --check . || failed=1
	$(BIN)/mypy || failed=1
	$(BIN)/lint-imports || failed=1
	exit $$failed

format: $(INSTALLED) ## format the code and mend what the linter can mend
	@$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## remove .venv, caches, logs and machine code; what was trained stays in build/
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache $(MACHINE_CODE) dist logs ./*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp makes every later `make` instant; it is older than these files when they change.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv" >&2; exit 1; }
	wanted=""
	# opuslib loads this library; find_library is how it looks for it.
	$(PYTHON) -c 'import ctypes.util, sys; sys.exit(not ctypes.util.find_library("opus"))' || wanted="$$wanted libopus0"
	# Debian ships Python without ensurepip.
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || wanted="$$wanted $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
	if test -n "$$wanted"; then
		sudo=""
		test "$$(id -u)" = 0 || sudo="sudo -n"
		echo "Installing system packages:$$wanted"
		# A fresh machine's own updates hold the lock for a while.
		if ! command -v apt-get >/dev/null || ! { $$sudo apt-get update -qq; $$sudo apt-get -o DPkg::Lock::Timeout=120 install -qq -y --no-install-recommends $$wanted; } >/dev/null; then
			echo "These system packages are missing and could not be installed here:$$wanted" >&2
			echo "Install them (Debian, Ubuntu: sudo apt-get install$$wanted) and call make again." >&2
			exit 1
		fi
	fi
	echo "Installing the pinned Python packages into .venv (about a minute)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	# Without an NVIDIA driver the CPU build of torch does: from wherever pip looks, else from PyTorch's own index.
	torch="$$(grep '^torch==' constraints.txt)"
	if test "$$(uname -s)" = Linux && ! command -v nvidia-smi >/dev/null; then
		$(BIN)/python -m pip install -q --no-deps "$$torch+cpu" 2>/dev/null \
			|| $(BIN)/python -m pip install -q --no-deps --index-url https://download.pytorch.org/whl/cpu "$$torch+cpu"
	fi
	$(BIN)/python -m pip install -q -e '.[all,dev]'
	touch $@

# Made anew whenever anything in the packages changes. Without a C compiler the copy holds plain sources.
$(MACHINE_CODE)/.made: $(INSTALLED) setup.py $(shell find asr_cli asr_gateway asr_worker shared -type f -not -path '*/__pycache__/*')
	@rm -rf $(MACHINE_CODE)
	echo "Compiling the gateway's hot modules (a minute)"
	env -u PIP_BUILD_CONSTRAINT $(BIN)/python -m pip install -q --no-deps --no-build-isolation --target $(MACHINE_CODE) .
	$(WITH_MACHINE_CODE) $(BIN)/python -c 'import sys; from shared.flavour import is_compiled; sys.exit(not is_compiled())' \
		|| echo "No C compiler or no Python headers here (apt-get install gcc python3-dev): plain Python runs" >&2
	$(WITH_MACHINE_CODE) $(BIN)/python -c 'import sys; from shared.flavour import is_compiled; from asr_gateway.dialects import kyutai; sys.exit(is_compiled() and kyutai.samples_of is None)' \
		|| echo "kyutai_samples.c was not compiled (pip without -q says why): its work is done in Python" >&2
	touch $@

include training/training.mk bench/bench.mk
