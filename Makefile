# CI calls these same names. Every target makes .venv first if it is missing or out of date.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON_IN_VENV := .venv/bin/python

# Threads that wait for work give up the core instead of spinning on it: a busy 2-core machine trains many times faster.
OMP_WAIT_POLICY ?= PASSIVE
export OMP_WAIT_POLICY

.PHONY: help demo test lint bench docs venv clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv  ## the whole loop on this machine; DATA=myo|wisdm|FILE.npz for other data; writes demo-report/
	$(PYTHON_IN_VENV) -m demo $(if $(DATA),--data '$(DATA)')

# Two processes of one thread each: what two threads each would do on two cores takes longer.
test: export OMP_NUM_THREADS ?= 1
test: venv  ## all tests, on two processes
	$(PYTHON_IN_VENV) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: venv  ## style, types, import contracts, shell scripts, Dockerfile
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m mypy
	.venv/bin/lint-imports
	@$(call if_there,shellcheck,.ci/run scripts/*.sh scripts/fleet/*.sh)
	@$(call if_there,shellcheck,-s sh edgectl/fleet/remote.sh)
	@$(call if_there,hadolint,Dockerfile.jetson)

bench: venv  ## every benchmark, quickly; ends with the goals that do not hold
	$(PYTHON_IN_VENV) -m benchmarks --quick

docs: venv  ## docs/cli-reference.md from the commands' --help
	$(PYTHON_IN_VENV) -m scripts.cli_reference

venv:  ## .venv with everything that development needs
	@scripts/venv.sh

clean:  ## remove what the targets made, .venv included
	rm -rf .venv demo-report build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# if_there TOOL,FILES: the tool has no wheel for some platforms.
define if_there
if [ -x .venv/bin/$(1) ]; then echo ".venv/bin/$(1) $(2)"; .venv/bin/$(1) $(2); else echo "$(1): not available on this platform, skipped"; fi
endef
