# `make run` and `make test` are all a newcomer needs; both set up the environment first.

PYTHON ?= python3
# On Linux with a GPU the package index gives the CUDA build of this version.
TORCH ?= torch==2.13.0
CONFIG ?= configs/burgers_demo.yaml
VENV := .venv
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run serve deploy check test-fast test test-all soak overhead reference lint docs clean
# Tests start hundreds of processes: bytecode is kept, also where the shell says otherwise.
TESTS := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## create the environment from constraints.txt

# torch first: asked for as a dependency, its newest release would be fetched instead.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "installing into $(VENV) (a few minutes, once)"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt $(TORCH)
	$(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: $(READY)  ## train and evaluate $(CONFIG), with Prefect
	$(VENV)/bin/python -m flows $(CONFIG)

# It ends with make, however make ends.
serve: $(READY)  ## Prefect server and worker together, until Ctrl-C
	@UPS_PARENT_PID=$$PPID \
		exec $(VENV)/bin/python -m ups.pipeline.supervise.process SIGTERM deployments.serve

deploy: $(READY)  ## register all deployments on the server; again to bring them up to date
	@$(VENV)/bin/python -m deployments.deploy

# Both at once: the type checker has but one thread.
check: $(READY)  ## lint, and the fast tests
	@$(MAKE) --no-print-directory -j 2 lint test-fast

test-fast: $(READY)
	$(TESTS) -m "not slow"

# Two processes; a file's tests stay in one, for they share fixtures, and so do those of flows, for they share a server.
test: $(READY)  ## run all tests that a change needs
	$(TESTS) -m "not long"

# Few and long: whoever is free takes the next one.
test-all: test  ## the long repetitions too
	$(TESTS) --dist load -m long

soak: $(READY)  ## 500 short runs through one server (RUNS=500): does anything grow?
	$(VENV)/bin/python tests/flows/soak.py --runs $(or $(RUNS),500)

# Under another name first: what is shipped stays if the export fails.
reference: $(READY)  ## a finished run becomes the model that comes with the library (RUN=runs/...)
	$(VENV)/bin/ups export $(RUN) --out ups/reference/.new.safetensors
	mv ups/reference/.new.safetensors ups/reference/burgers_demo.safetensors

overhead: $(READY)  ## what Prefect and the store cost a run
	$(VENV)/bin/python tests/flows/overhead.py

lint: $(READY)  ## style, types and the import contract
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright
	$(VENV)/bin/lint-imports

# From nothing each time, in a second or two: a page that is gone leaves nothing behind.
docs: $(READY)  ## build the site of docs/ into site/
	@rm -rf site
	$(VENV)/bin/sphinx-build -q -W --keep-going -E -d site/.doctrees docs site
	@echo "open site/index.html"

clean:  ## remove the environment (never artifacts or runs)
	rm -rf $(VENV)
