# Two commands do everything on a fresh machine: `make run` and `make test`. `make help` lists the others.
PYTHON ?= python3
VENV ?= .venv

DATASET ?= synthetic
METHODS ?= full,one_sided,baco,random
BACKBONE ?= lightgcn
PROTOCOL ?= quick
ARGS ?=                      # further overrides, such as ARGS="seed=1 budget=0.1"

GRID ?= all                  # of conf/grid
MINUTES ?= null              # stop cleanly after so many
OUT ?= batch                 # folder for what a batch leaves
BATCH ?= $(strip $(OUT))/batch.zip

IN_VENV := $(VENV)/bin/python
BACO := $(VENV)/bin/baco
INSTALLED := $(VENV)/installed

.PHONY: run grid test lint tables figures report gpu-batch collect assignments help clean distclean

run: $(INSTALLED)  ## train and compare METHODS on DATASET
	$(BACO) run -m dataset=$(DATASET) method=$(METHODS) backbone=$(BACKBONE) protocol=$(PROTOCOL) $(ARGS)

grid: $(INSTALLED)  ## the runs of GRID that have no record yet, for MINUTES
	$(BACO) grid $(strip $(GRID)) minutes=$(strip $(MINUTES)) $(ARGS)

test: lint  ## all tests, one process for each core, so that threads which wait must not hold one
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(IN_VENV) -m pytest -q --numprocesses auto --dist worksteal

lint: $(INSTALLED)  ## style, the floors of the packages, and types
	$(IN_VENV) -m ruff check . && $(IN_VENV) -m ruff format --check --quiet .
	$(VENV)/bin/lint-imports --no-logo && $(IN_VENV) -m mypy

tables: $(INSTALLED)  ## the tables in results/tables, from the records in results/records
	$(BACO) tables

figures: $(INSTALLED)  ## the figures in results/figures
	$(BACO) figures

report: $(INSTALLED)  ## tables and figures as one page, results/report.html
	$(BACO) report

gpu-batch:  ## pending runs of GRID for MINUTES (9) with the system's Python; new records in OUT/batch.zip
	$(PYTHON) -m baco batch --grid $(strip $(GRID)) --minutes $(patsubst null,9,$(strip $(MINUTES))) --out $(strip $(OUT)) $(ARGS)

collect: $(INSTALLED)  ## merge BATCH, the batch.zip of another machine, into results/records
	$(BACO) collect $(BATCH)

assignments: $(INSTALLED)  ## only cluster, for the runs of GRID: the codes travel in runs/assignments
	$(BACO) grid $(strip $(GRID)) minutes=$(strip $(MINUTES)) assign_only=true $(ARGS)

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

$(INSTALLED): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(IN_VENV) -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

clean: $(INSTALLED)  ## list what killed runs have left; ARGS=--remove removes it
	$(BACO) clean $(ARGS)

distclean:  ## remove the environment; what is in runs/ stays, since trainings may go on from it
	rm -rf $(VENV)
