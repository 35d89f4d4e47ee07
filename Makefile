# The front door; the work is in the Snakefile (figures) and in tests/ (checks).
PROFILE ?= quick
JOBS    ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
PYTHON  ?= python3
UV      := uv==0.13.9

# What Snakemake says between jobs; one line a finished notebook and the count remain, and every error.
CHATTER := ^(Select jobs|Execute [0-9]|Assuming|Building DAG|Using shell|Provided cores|Rules claiming|Complete log|Elapsed|Finished jobid|\[[A-Z]|$$)

SHELL       := bash
.SHELLFLAGS := -o pipefail -c
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export OMP_NUM_THREADS = 1
export PYTHONHASHSEED = 0

.PHONY: help setup figures test readme

help:
	@echo "make figures [PROFILE=quick|smoke|paper] [JOBS=n]  train and draw; resumes where it stopped"
	@echo "make test                                          everything that checks the project"
	@echo "make setup                                         only make .venv/ from requirements.lock"

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	.venv/bin/uv pip install --quiet --python .venv/bin/python --compile-bytecode --require-hashes -r requirements.lock
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -e .
	@touch $@

figures: setup
	@snakemake --cores $(JOBS) --quiet rules host reason --config profile=$(PROFILE) 2>&1 | grep --line-buffered -vE '$(CHATTER)'
	@ls figures/$(PROFILE)/*.png figures/$(PROFILE)/*.pdf figures/$(PROFILE)/*.svg

test: setup
	@python data_scripts/mnist.py
	@pytest -q -n $(JOBS) tests

readme:
	@python tests/readme.py > README.md
