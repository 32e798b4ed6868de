# The local stack and the checks; everything they need goes into .venv and the user's cache folder.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
# pip shows its progress, but where nobody looks on.
PIP = $(VENV)/bin/pip install --disable-pip-version-check --require-hashes $(if $(CI),--quiet)
SERVICES := 01-DataProducer 02-StreamProcessing 03-ElasticsearchSink-Alert

.PHONY: demo stack test unit lint types bench plots pictures lock clean-data clean
.DEFAULT_GOAL := help

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/demo.done ## the whole pipeline on real servers; ARGS="--for 60 --no-view" runs it headless for a minute
	@$(RUN) -m local_stack demo $(ARGS)

stack: $(VENV)/demo.done ## Kafka and Elasticsearch alone
	@$(RUN) -m local_stack stack $(ARGS)

test: $(VENV)/tests.done ## all tests, against real servers; ARGS="tests/unit" for some of them
	@$(RUN) -m pytest $(ARGS)

unit: $(VENV)/tests.done ## the unit tests alone: seconds
	@$(RUN) -m pytest tests/unit $(ARGS)

lint: $(VENV)/tests.done ## ruff: lint and format
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

types: $(VENV)/tests.done ## mypy, strict
	@$(VENV)/bin/mypy

bench: $(VENV)/demo.done ## how fast it is, in one table; ARGS="throughput latency" for some parts of it
	@$(RUN) -m benchmarks $(ARGS)

plots: $(VENV)/tests.done ## the benchmark's pictures in img/, from docs/benchmarks.json
	@$(RUN) -m benchmarks.plots docs/benchmarks.json img

pictures: $(VENV)/tests.done ## the pictures in img/, from a running demo: some minutes, and it needs Chromium
	@$(PYTHON) -m venv $(VENV)/recorder && $(VENV)/recorder/bin/pip install --quiet --disable-pip-version-check --require-hashes -r img/requirements.txt
	@$(RUN) -m img

clean-data: ## forget all data of the local stack
	rm -rf .data

clean: clean-data ## forget the virtual environment too
	rm -rf $(VENV)

PIN := uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
lock: ## pin the newest versions that the requirements.in files allow (needs uv)
	@$(PIN) tests/requirements.in -o tests/requirements.txt
	@for folder in $(SERVICES) live_page local_stack; do \
	  $(PIN) -c tests/requirements.txt $$folder/requirements.in -o $$folder/requirements.txt || exit 1; \
	done
	@$(PIN) --unsafe-package none img/requirements.in -o img/requirements.txt

$(VENV)/venv.done:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 is needed, and '$(PYTHON)' is not it: install it, or say where it is with make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing: install it (python3.11-venv on Debian)"; exit 1; }
	@printf '%s\n' '$(CURDIR)' $(SERVICES:%='$(CURDIR)/%') > $(VENV)/lib/python3.11/site-packages/services.pth
	@touch $@

$(VENV)/demo.done: local_stack/requirements.txt $(VENV)/venv.done
	@echo "installing the Python packages, about 450 MB the first time"
	@$(PIP) -r $<
	@touch $@

$(VENV)/tests.done: tests/requirements.txt $(VENV)/venv.done
	@$(PIP) -r $<
	@touch $@ $(VENV)/demo.done
