# Everything a person does first. `make` alone lists the targets; each one sets up what it needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

PYTHON ?= python3
BIN := .venv/bin

# FFCV is compiled against these headers; without them it is left out, and the loader in memory gives the same pixels.
FFCV := $(shell pkg-config --exists opencv4 libturbojpeg 2>/dev/null && echo ,ffcv)
INSTALLED := .venv/installed-workflow,dev$(FFCV)

SNAKEFILES := Snakefile workflow/rules

.PHONY: help setup quickstart experiment test test-structured test-processes test-long test-slurm test-gpu test-wheel site docs lint reference constraints

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 26

setup: $(INSTALLED)  ## install everything into .venv (a minute or two; nothing the second time)

$(INSTALLED): pyproject.toml constraints.txt
	@if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	  echo "setup: Python 3.11 or newer is needed, and $(PYTHON) is not; name another one: make PYTHON=python3.12" >&2; exit 2
	fi
	if [ ! -x $(BIN)/python ]; then
	  if ! $(PYTHON) -c 'import ensurepip' 2>/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	    echo "setup: installing python3-venv"
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null || true
	  fi
	  if ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then
	    echo "setup: $(PYTHON) cannot make virtual environments: sudo apt-get install python3-venv" >&2; exit 2
	  fi
	  $(PYTHON) -m venv .venv
	fi
	[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	if [ -z "$(FFCV)" ]; then
	  echo "setup: without FFCV; for it: sudo apt-get install libopencv-dev libturbojpeg0-dev pkg-config, then make setup"
	fi
	echo "setup: installing into .venv (torch is large: this takes a minute or two)"
	# Compiled once here, not in every job: a process that may not write into .venv would pay seconds for it each time.
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[workflow,dev$(FFCV)]'
	rm -f .venv/installed-*
	touch '$@'

quickstart: setup  ## prune a small net on real 8 x 8 digits in both spaces: table, figures and report in minutes
	@$(BIN)/ipbench quickstart

experiment: setup  ## any experiment, its table and pictures: make experiment NAME=ip-fashion; goes on where it stopped
	@$(BIN)/ipbench experiment '$(NAME)'

test: setup  ## the tests, two files at a time; the last lines say what was skipped, and why
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-structured: setup  ## methods that remove filters, columns and channels: trained, cut, compared
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'structured and not long'

test-processes: setup  ## real Snakemake, and trainings that are killed, stopped, joined and starved of disk
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'processes and not long'

test-long: setup  ## what takes minutes: large nets, detectors from end to end
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long

test-slurm: setup  ## the profile slurm on a real SLURM, here, in six minutes; as root, with slurm-wlm and munge
	@$(BIN)/python -m pytest -m slurm tests/slurm

test-gpu: setup  ## what needs a GPU, in a minute or two on one
	@$(BIN)/python -m pytest -n 8 -m gpu tests/gpu

test-wheel: setup  ## the quickstart from the built wheel, in an environment and a folder that have nothing else
	@rm -rf build/wheel
	$(BIN)/uv build --quiet --wheel --out-dir build/wheel .
	$(BIN)/uv venv --quiet --python $(BIN)/python build/wheel/venv
	$(BIN)/uv pip install --quiet --python build/wheel/venv/bin/python -c constraints.txt \
	  "$$(ls build/wheel/ipbench-*.whl)[workflow]"
	mkdir build/wheel/empty
	cd build/wheel/empty
	../venv/bin/ipbench quickstart
	test -s results/quickstart/report.html

site: setup  ## the documentation as a site in build/site, warnings as errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

docs: site  ## the site, and every command and block of code in the documents run
	@$(BIN)/python -m pytest -m docs tests/docs

lint: setup  ## style, types and the workflow's own rules
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --line-length 120 --check $(SNAKEFILES)
	$(BIN)/snakemake --lint --configfile config/quickstart.yaml

reference: setup  ## tables and figures of the published results anew, from their runs.parquet
	@export LC_ALL=C  # the order of the grids in their common figure
	for results in results/reference/*/; do
	  $(BIN)/ipbench tables "$$results" && $(BIN)/ipbench figures --overview "$$results"
	done
	$(BIN)/ipbench figures --across docs/figures/all-grids results/reference/*/

constraints: setup  ## renew constraints.txt with the newest versions
	@{ sed -n '/^#/p' constraints.txt
	  $(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
	    --quiet --no-annotate --no-header | sed "/== 'win32'$$/d"
	  echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)"
	} > constraints.new
	mv constraints.new constraints.txt
