# SPDX-License-Identifier: Apache-2.0
# make demo, make test: one command each, on a machine with Python 3.10+, CMake and a C++ compiler.
SHELL := /bin/bash
PYTHON ?= python3
ROS ?=
export ROS
ENTER := . ./env.sh &&

.DEFAULT_GOAL := help
.PHONY: help setup demo test smoke clean distclean

help:
	@echo 'make setup      build the environment: .venv, ROS 2 from wheels (or the one that is sourced), messages'
	@echo 'make demo       run the node on a drive; FRAMES=folder or BAG=file replaces the built-in one'
	@echo 'make test       lint, types and all tests'
	@echo 'make smoke      start the node, segment a frame, call its services; ROS=kilted: with that release'
	@echo 'make clean      remove what was built'
	@echo 'make distclean  remove .venv, too'
	@echo 'PYTHON=python3.12 names the interpreter of .venv;  . ./env.sh  enters the environment'

setup:
	@command -v $(PYTHON) > /dev/null || \
	  { echo 'adpc_ros: $(PYTHON) is missing: sudo apt install python3 python3-venv python3-dev' >&2; exit 1; }
	@$(PYTHON) tools/set_up.py

demo: setup  # FRAMES and BAG of the command line reach it as environment variables
	@$(ENTER) python -m adpc_ros.demo

test: setup
	@$(ENTER) ruff check && ruff format --check && mypy && python -m pytest

smoke: setup
	@$(ENTER) python -m pytest -q test/test_smoke.py

clean:
	rm -rf build build-* install install-* log .mypy_cache .pytest_cache .ruff_cache .hypothesis

distclean: clean
	rm -rf .venv .venv-*
