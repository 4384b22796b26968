# SPDX-License-Identifier: Apache-2.0
# From a fresh checkout, with Python and make: `make demo` trains and writes a report, `make test`
# runs the tests. Both set the environment up first and find it ready the second time.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
PYTHON ?= python3
TESTED_PYTHONS := python3.11 python3.12 python3.13

# "X.Y PATH" of the Python asked for, or "error: ..."
FOUND := $(shell sh .ci/find-python "$(PYTHON)")
ifeq ($(firstword $(FOUND)),error:)
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
$(error $(wordlist 2,$(words $(FOUND)),$(FOUND)))
endif
FOUND := none
endif
VERSION := $(firstword $(FOUND))
INTERPRETER := $(wordlist 2,$(words $(FOUND)),$(FOUND))
DEFAULT_VERSION := $(firstword $(if $(filter python3,$(PYTHON)),$(FOUND),$(shell sh .ci/find-python)))

VENV := $(if $(filter $(VERSION),$(DEFAULT_VERSION)),.venv,.venv-py$(VERSION))
BIN := $(VENV)/bin
CONSTRAINTS := $(wildcard constraints/py$(VERSION).txt)
READY := $(VENV)/.ready-py$(VERSION)
# Most of a test is compiling on one core. Four workers at most: each holds JAX and what it compiled.
WORKERS := -n logical --maxprocesses=4 --dist=worksteal
# Compiling is most of the suite. Without LLVM's optimisations, with XLA's older emitters of fused
# code and each program in one piece it takes a quarter of the time. Costs and memory that XLA tells
# stay, but scatters become loops: a test of them asks for the emitters. The older ones are in the
# jaxlib of Python 3.11 alone. test-slow, and test-others on Python 3.13, run as XLA does by default.
FAST_FLAGS := --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1
ifeq ($(VERSION),3.11)
FAST_FLAGS += --xla_cpu_use_fusion_emitters=false
endif
FAST_COMPILE := XLA_FLAGS="$(XLA_FLAGS) $(FAST_FLAGS)"

.PHONY: help
help: ## list the targets
	@echo "usage: make TARGET [PYTHON=python3.12]"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | \
	  while IFS='|' read -r target text; do printf '  %-14s %s\n' "$$target" "$$text"; done

# Depends on what decides which packages are installed, so that a second call finds it done.
$(READY): pyproject.toml $(CONSTRAINTS) .ci/install
	@sh .ci/install "$(INTERPRETER)" "$(VENV)" "$(CONSTRAINTS)"
	@touch $@

.PHONY: install
install: $(READY) ## make the environment and install xloss with everything the tests need

.PHONY: demo
demo: $(READY) ## train on the embedded digits data and write a report with pictures
	@$(BIN)/python -m experiments.run --config=digits --workdir=runs/demo --overwrite
	@echo "report: $(CURDIR)/runs/demo/report.html (and report.png)"

.PHONY: lint
lint: $(READY) ## ruff and the type checker
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

.PHONY: test
test: lint ## lint, types and every test that is not slow
	@$(FAST_COMPILE) $(BIN)/python -m pytest $(WORKERS) -m "not slow"

# Tests that need XLA's compilers for other machines.
COMPILED := $(addprefix tests/experiments/test_,accelerators.py compile_check.py)

.PHONY: test-slow
test-slow: $(READY) ## kills and resumes, notebooks, compile checks, several processes
	@$(BIN)/python -m pytest -m slow $(addprefix --ignore=,$(COMPILED))

# Beside the environment, not in it: a plugin that finds no device speaks up at every start.
COMPILERS := .venv-compilers/py$(VERSION)

.PHONY: compile-check
compile-check: $(READY) ## compile heads and train steps for TPUs and GPUs that are not there (1.2 GB, once)
	@if [ ! -e $(COMPILERS)/.ready ]; then \
	  $(BIN)/python -m pip install --quiet --no-deps --target $(COMPILERS) \
	    $(addprefix --constraint ,$(CONSTRAINTS)) libtpu jax-cuda12-plugin jax-cuda12-pjrt \
	    && touch $(COMPILERS)/.ready || echo "XLA's compilers are not installed, skipped"; \
	fi
	@PYTHONPATH=$(COMPILERS) $(BIN)/python -m pytest $(WORKERS) -m slow $(COMPILED)

# On 3.13, with the newest jax, fully optimised: what the package itself computes. On the others the
# contract too, and without LLVM's optimisations, as in `make test`.
QUICK := tests/golden tests/xloss
ifneq ($(VERSION),3.13)
QUICK += tests/contract
QUICKLY := $(FAST_COMPILE)
endif

.PHONY: test-quick
test-quick: $(READY) ## what decides whether another Python works (make test-quick PYTHON=python3.13)
	@$(QUICKLY) $(BIN)/python -m pytest $(WORKERS) -m "not slow" $(QUICK)
	@rm -rf runs/quick-py$(VERSION)
	@$(BIN)/python -m experiments.run --config=digits:quick --workdir=runs/quick-py$(VERSION)

.PHONY: test-others
test-others: ## test-quick on the other tested Pythons that this machine has
	@status=0; \
	for python in $(filter-out python$(VERSION),$(TESTED_PYTHONS)); do \
	  found=$$(sh .ci/find-python $$python); \
	  case $$found in \
	    error:*) echo "skipped $$python: $${found#error: }" ;; \
	    *) echo "== $$python"; $(MAKE) --no-print-directory test-quick PYTHON=$$python || status=1 ;; \
	  esac; \
	done; exit $$status

.PHONY: test-all
test-all: test test-slow compile-check docs test-others ## all tests, compile checks, docs, other Pythons

DOCS_READY := $(VENV)/.docs-py$(VERSION)
$(DOCS_READY): $(READY)
	@sh .ci/install "$(INTERPRETER)" "$(VENV)" "$(CONSTRAINTS)" docs
	@touch $@

.PHONY: docs
docs: $(DOCS_READY) ## write the reference of the API, docs/_build/html; a warning is an error
	@rm -rf docs/api docs/_build
	@JAX_PLATFORMS=cpu $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --jobs auto \
	  --builder html docs docs/_build/html
	@echo "reference: $(CURDIR)/docs/_build/html/index.html"

.PHONY: bench
bench: $(READY) ## time losses and heads; prints tables with machine and versions
	@$(BIN)/python -m experiments.benchmarks.losses
	@$(BIN)/python -m experiments.benchmarks.heads
	@$(BIN)/python -m experiments.benchmarks.spherical
	@$(BIN)/python -m experiments.benchmarks.multilabel
	@$(BIN)/python -m experiments.benchmarks.attacks
	@$(BIN)/python -m experiments.benchmarks.optimizers
	@$(BIN)/python -m experiments.benchmarks.optimizer_state
	@$(BIN)/python -m experiments.benchmarks.loop
	@$(BIN)/python -m experiments.benchmarks.scaling

.PHONY: verify
verify: $(READY) ## write VERIFIED.md: what was checked against the authors' numbers
	@$(BIN)/python -m experiments.verify

.PHONY: results
results: $(READY) ## write RESULTS.md and its pictures from the committed run files
	@$(BIN)/python -m experiments.results

.PHONY: clean
clean: ## remove what make made: environments, caches, the demo's run
	@rm -rf .venv-compilers; for venv in .venv .venv-py*; do [ ! -e "$$venv/.made-by-make" ] || rm -rf "$$venv"; done
	@rm -rf docs/api docs/_build runs/demo runs/quick-py* .pytest_cache .ruff_cache .hypothesis
	@[ ! -d runs ] || rmdir runs 2>/dev/null || true
	@find xloss experiments launch tests -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
