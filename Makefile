# make demo | test | lint | bench. Each installs what it needs into .venv first, and again when
# pyproject.toml or constraints.txt change. PYTHON chooses the interpreter: make demo PYTHON=python3.12

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $(name) 2>/dev/null),$(name))) python3)
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out/demo
DAG_OUT ?= out/demo-socdag
MAP_OUT ?= out/demo-memmap
MOE_OUT ?= out/demo-moe
ROUTING_OUT ?= out/demo-routing
DEMO_SCHEDULERS := jobshop/spt,jobshop/mwkr,jobshop/spt-twkr,jobshop/spt-twkr-both,jobshop/tabu,jobshop/cp-sat,jobshop/ppo,jobshop/ppo-sample
MAP_SCHEDULERS := memmap/all-slow,memmap/xla,memmap/xla-annealing,memmap/milp-repair,memmap/priced,memmap/ppo,memmap/ppo-sample,memmap/hybrid
MOE_SCHEDULERS := moe/contiguous,moe/eplb-hierarchical,moe/eplb-global,moe/lpt-swap,moe/eplb-every-window,moe/swaps,moe/flashlb,moe/hindsight,moe/ppo-rebalance
ROUTING_SCHEDULERS := routing/random,routing/round-robin,routing/least-outstanding,routing/min-ttft,routing/affinity,routing/affinity-guarded,routing/dualmap-speed,routing/preble-speed,routing/llm-d-speed,routing/clairvoyant,routing/ppo
DAG_SCHEDULERS := socdag/heft,socdag/peft,socdag/lookahead,socdag/min-min,socdag/annealing,socdag/cp-sat,socdag/ppo,socdag/ppo-sample

# The demo runs the committed policy with onnxruntime and needs no torch: half the download of the rest.
DEMO_STAMP := $(VENV)/.installed-demo
FULL_STAMP := $(VENV)/.installed-full
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help demo test lint bench
.DEFAULT_GOAL := help

help:
	@echo "make demo    compare rules, searches, CP-SAT and trained policies; writes report.html into $(OUT)/, $(DAG_OUT)/, $(MAP_OUT)/, $(MOE_OUT)/ and $(ROUTING_OUT)/"
	@echo "make test    run the test suite"
	@echo "make lint    ruff and mypy"
	@echo "make bench   decisions per second and latency, as JSON"

demo: $(DEMO_STAMP)
	$(BIN)/schedrl compare jobshop --suite demo --schedulers $(DEMO_SCHEDULERS) --time-limit 10 --no-resume --out $(OUT)
	$(BIN)/schedrl compare socdag --suite demo --schedulers $(DAG_SCHEDULERS) --time-limit 5 --no-resume --out $(DAG_OUT)
	$(BIN)/schedrl compare memmap --suite demo --schedulers $(MAP_SCHEDULERS) --time-limit 5 --no-resume --out $(MAP_OUT)
	$(BIN)/schedrl compare moe --suite moe-demo --schedulers $(MOE_SCHEDULERS) --time-limit 5 --no-resume --out $(MOE_OUT)
	$(BIN)/schedrl compare routing --suite routing-demo --schedulers $(ROUTING_SCHEDULERS) --time-limit 5 --no-resume --out $(ROUTING_OUT)
	@echo "reports: $(abspath $(OUT))/report.html $(abspath $(DAG_OUT))/report.html $(abspath $(MAP_OUT))/report.html $(abspath $(MOE_OUT))/report.html $(abspath $(ROUTING_OUT))/report.html"

test: $(FULL_STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(FULL_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(FULL_STAMP)
	$(BIN)/schedrl bench jobshop --json
	$(BIN)/schedrl bench socdag --json
	$(BIN)/schedrl bench memmap --json
	$(BIN)/schedrl bench moe --json
	$(BIN)/schedrl bench routing --json

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; schedrl needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1); schedrl needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: $(PYTHON) -m venv failed (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }

$(DEMO_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) ".[export,plot]"
	@touch $@

# The full installation serves the demo too.
$(FULL_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) ".[train,export,plot,dev]"
	@touch $(DEMO_STAMP) $@
