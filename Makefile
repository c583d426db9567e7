# Two commands, each of which does all its set-up in a fresh clone and is quick when repeated:
#
#   make quickstart    raises a small model on this Python's standard library, and asks it a question
#   make test          runs the style checks and the test suite
#
# PYTHON chooses the interpreter (3.11 or newer); CONSTRAINTS= installs without the tested versions.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && echo $$p && break; done)
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
RUN := runs/quickstart

.PHONY: help quickstart test lint types docs clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -8

quickstart: $(VENV)/.ready
	$(BIN)/puna raise --out $(RUN)
	@echo
	@echo '> What does the function `copyfile` do?'
	@$(BIN)/puna chat $(RUN) --message 'What does the function `copyfile` do?'

test: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python -m pytest -n auto --maxprocesses 8 -rs

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.ready-dev
	$(BIN)/pyright

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo 'Puna needs Python 3.11 or newer with the venv module (Debian: apt install python3-venv).'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	@echo 'Installing Puna into $(VENV) (once; torch is most of it) ...'
	$(PIP) -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	@echo 'Installing Puna and its test tools into $(VENV) (once) ...'
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.ready

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
