# `make train` and `make test` set everything up and run. The virtual environment is made once, and again when a file
# changes that the stamp depends on.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install train check test lint quick unit browser docs bench gpu strength soak clean

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first interpreter that runs and is new enough; `make PYTHON=...` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
# Installed first and alone: resolved together with everything else, torch may bring gigabytes of CUDA packages.
TORCH := $(shell grep -E '^torch==' constraints.txt)

help:  ## show this list
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1|\2/' | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

install: $(STAMP)  ## make the virtual environment (every other target does this by itself)

$(STAMP): pyproject.toml constraints.txt hatch_build.py keisei_lightning/games/shogi/kernel.c keisei_lightning/search/kernel.c
	@test -n "$(PYTHON)" || { echo "keisei-lightning needs Python 3.11 or newer (make PYTHON=/path/to/python3)"; exit 1; }
	@echo "[1/3] virtual environment in $(VENV) ($$($(PYTHON) --version))"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/3] installing $(TORCH) (the CPU build)"
	@$(PIP) install "$(TORCH)" -c constraints.txt
	@echo "[3/3] installing keisei-lightning and what it needs (a few minutes the first time)"
	@$(PIP) install -e ".[dev]" -c constraints.txt
	@touch $@

train: $(STAMP)  ## train shogi by self-play for three to ten minutes, then show checkpoint, score, curves and a game
	@$(BIN)/python train.py experiment=shogi

check: $(STAMP)  ## the quick lane, under two minutes on two idle cores: every gate, and the unit tests that are quick and start no worker
	@$(MAKE) --no-print-directory -j2 lint quick

test: lint unit  ## every gate and every test, as CI runs them

lint: $(STAMP)  ## ruff, strict mypy and the import contracts
	@echo "ruff";            $(BIN)/ruff check --quiet .
	@echo "ruff format";     $(BIN)/ruff format --check --quiet .
	@echo "mypy --strict";   $(BIN)/mypy --no-error-summary
	@echo "import contracts"; PYTHONPATH=. $(BIN)/lint-imports

# Tests often wait for processes: two files at once take little more than half as long, on two cores too.
JOBS ?= 2
quick: $(STAMP)
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not process and not slow" tests/unit

unit: $(STAMP) browser
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# For the tests of pages and pictures, where this user may install it; without it they are skipped, and say so.
browser:
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && \
		echo "installing chromium and rsvg-convert for the tests of pages" && timeout 300 sh -c \
		"apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium librsvg2-bin" > /dev/null 2>&1; } || true

docs: $(STAMP)  ## the pages as a site in site/, with the reference made from the code; a warning is an error
	@NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --quiet --strict --clean
	@echo "site/index.html"

bench: $(STAMP)  ## speed on this machine: collecting, learning, publishing, all of it, and TorchRL beside it (half an hour)
	@$(BIN)/keisei bench rules write=results/bench/rules.json
	@$(BIN)/keisei bench rules kernel=false write=results/bench/rules_of_rsshogi.json
	@$(BIN)/keisei bench collect write=results/bench/collect.json
	@$(BIN)/keisei bench collect model=small 'mode=[workers,central]' 'workers=[1,2]' write=results/bench/modes.json
	@$(BIN)/keisei bench learn write=results/bench/learn.json
	@$(BIN)/keisei bench profile experiment=shogi write=results/bench/profile.json
	@$(BIN)/keisei bench weights write=results/bench/weights.json
	@$(BIN)/python tests/benchmarks/allocator.py --write results/bench/allocator.json
	@$(BIN)/python tests/benchmarks/collectors.py --json results/bench/collectors.json

# Not $(STAMP): a machine with a GPU has torch already, and may have no network.
GPU_PYTHON ?= $(shell python3 -c 'import torch' 2>/dev/null && echo python3 || echo $(BIN)/python)
DEVICE ?= cuda
OUT ?= results/gpu
MINUTES ?= 9
gpu:  ## tests and measurements on a GPU, in nine minutes (DEVICE=cpu: a rehearsal; WHEELS=folder of missing wheels)
	@$(GPU_PYTHON) tests/gpu.py --device $(DEVICE) --out $(OUT) --minutes $(MINUTES) $(if $(WHEELS),--wheels $(WHEELS))

strength: $(STAMP)  ## every claim of strength: train with three seeds, measure, one table each (many hours)
	@$(BIN)/python tests/strength.py --folder results/strength

soak: $(STAMP)  ## the faults with the full counts, chaos, TorchRL beside it: one table (about three hours)
	@$(BIN)/python tests/soak.py

clean:  ## remove caches and build outputs (not .venv, not results)
	@rm -rf build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
