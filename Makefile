# The front door; the work is in the Snakefile (figures, studies), in tools/ and in tests/ (checks).
PROFILE ?= quick
DATASETS ?=
SIZE    ?= quick
STUDIES ?=
CLUSTER ?=
NB      ?=
JOBS    ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu)
PYTHON  ?= python3
UV      := uv==0.13.9
PEERS   := pykeops==2.3 -e '.[pythae,lightning]' snakemake-executor-plugin-cluster-generic==1.0.9
PEERS   += snakemake-executor-plugin-slurm==2.8.0 snakemake-executor-plugin-slurm-jobstep==0.6.1

SHELL       := bash
.SHELLFLAGS := -o pipefail -c
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export OMP_NUM_THREADS = 1
# What the user's environment tells Python, such as a folder with modules of the same names, is left out.
unexport $(filter PYTHON% MPLBACKEND,$(.VARIABLES))
export PYTHONPATH = $(CURDIR)
export PYTHONHASHSEED = 0

# `exec`, so that the pipeline's parent is make itself, and it ends when make is killed.
PIPELINE := exec wiseale-pipeline
PYTEST   := pytest -q -n $(JOBS) --dist loadgroup --durations 10
HERE      = --jobs $(JOBS) --parent $$PPID

.PHONY: help setup mnist figures studies publish verify redraw reproduce notebooks readme test nightly test-pythae faults bench docs test-docs

help:
	@echo "make figures [PROFILE=quick|smoke|paper] [JOBS=n]  train and draw, in runs/; resumes where it stopped"
	@echo "             [DATASETS=\"sine mnist\"]                only these; without it all but those that you have to bring"
	@echo "make studies [SIZE=quick|paper] [JOBS=n]           run the studies nbs/31-48, which go beyond the paper"
	@echo "             [STUDIES=\"slack bank\"]                only these"
	@echo "             [CLUSTER=profiles/slurm]              either of the two on a cluster; see the file in that folder"
	@echo "make publish [PROFILE=quick|analytic|studies|bench] for maintainers: make what was drawn in runs/ the committed figures"
	@echo "make verify                                        draw the committed figures again and compare the bytes"
	@echo "make redraw                                        draw them again in their place, after a change of their style"
	@echo "make reproduce [PROFILE=...] [JOBS=n]              train again from nothing and compare with the committed data"
	@echo "make notebooks [NB=\"24 07_config\"]                 execute notebooks in place, all or some, for what they show"
	@echo "make test                                          what checks the project in minutes, after each change"
	@echo "make nightly                                       the rest: pipeline, studies, kills, compiled steps, kernels, a cluster"
	@echo "make test-pythae                                   run what needs pythae, Lightning or a cluster's plugins, in the environment of make bench"
	@echo "make faults                                        kill training and the pipeline at random moments, 30 + 14 times"
	@echo "make bench                                         measure against other libraries; needs a C++ compiler"
	@echo "make docs                                          the web site, in _docs/; open _docs/index.html"
	@echo "make test-docs                                     open every page of it in Chromium"
	@echo "make setup                                         only make .venv/ from requirements.lock"
	@echo "make readme                                        write README.md from nbs/index.ipynb"

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	.venv/bin/uv pip install --quiet --python .venv/bin/python --compile-bytecode --require-hashes -r requirements.lock
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -e .
	@touch $@

# The images, downloaded unless they are there.
mnist: setup
	@python data_scripts/mnist.py

figures: setup
	@$(PIPELINE) figures "$(PROFILE)" --datasets "$(DATASETS)" --cluster "$(CLUSTER)" $(HERE)

studies: setup
	@$(PIPELINE) studies "$(SIZE)" --only "$(STUDIES)" --cluster "$(CLUSTER)" $(HERE)

publish: setup
	@$(PIPELINE) publish "$(PROFILE)" --datasets "$(DATASETS)" $(HERE)

verify: setup
	@$(PIPELINE) verify $(HERE)

redraw: setup
	@$(PIPELINE) redraw $(HERE)

reproduce: setup
	@$(PIPELINE) reproduce "$(PROFILE)" $(HERE)

notebooks: mnist
	@$(PIPELINE) notebooks $(NB) --parent $$PPID

test: mnist
	@PYTHONPATH= $(PYTEST) -m "not nightly" tests

nightly: mnist
	@PYTHONPATH= $(PYTEST) -m nightly tests

test-pythae: .venv-bench/ready
	@.venv-bench/bin/pytest -q tests/test_notebooks.py tests/test_project.py tests/test_lightning.py tests/test_cluster.py \
	  -k "pythae or lightning or test_cluster"

faults: mnist
	@pytest -q tests/test_faults.py --kills 30

# The peers live in an environment of their own, on top of the same lock.
.venv-bench/ready: .venv/ready
	@.venv/bin/uv venv --quiet --clear .venv-bench
	.venv/bin/uv pip install --quiet --python .venv-bench/bin/python --require-hashes -r requirements.lock
	@grep -E '^[A-Za-z0-9].*==' requirements.lock | sed 's/ *\\$$//' > .venv-bench/constraints.txt
	.venv/bin/uv pip install --quiet --python .venv-bench/bin/python -c .venv-bench/constraints.txt $(PEERS)
	@touch $@

# Measured anew each time, so it is no rule of the Snakefile. `make publish PROFILE=bench` commits what it measured.
bench: .venv-bench/ready mnist
	@mkdir -p runs/bench
	PATH="$(CURDIR)/.venv-bench/bin:$$PATH" .venv-bench/bin/wiseale-run nbs/40_bench.ipynb runs/bench/bench.ipynb -p redraw false

# What makes the web site, beside what is in .venv/.
.venv-docs/ready: .venv/ready requirements-docs.lock
	@.venv/bin/uv venv --quiet --clear .venv-docs
	.venv/bin/uv pip install --quiet --python .venv-docs/bin/python --compile-bytecode --require-hashes -r requirements-docs.lock
	@.venv/bin/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
	  > "$$(.venv-docs/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	@touch $@

# Executes no notebook; a warning is an error.
docs: .venv-docs/ready
	@.venv-docs/bin/python -m sphinx -q -W --keep-going -c docs . _docs
	@echo "_docs/index.html"

test-docs: docs
	@.venv-docs/bin/python -m pytest -q tests/test_docs.py tests/test_explorer.py

readme: setup
	@wiseale-pipeline readme > .README.md && mv .README.md README.md
