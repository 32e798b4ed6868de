# Commands to run and check the project; what they install goes into .venv and the user's cache folder.
SHELL := /bin/bash
# What a supported Python runs with status 0. Each is run, for a name may be a shim that runs nothing.
IS_SUPPORTED := -Ic 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)))' 2>/dev/null
# The Python that this clone was set up with, else the first supported one.
PYTHON ?= $(shell for each in "$$(sed -n 's/^executable = //p' .venv/pyvenv.cfg 2>/dev/null)" python3.11 python3.12 python3.13 python3; do \
  "$$each" $(IS_SUPPORTED) && { echo "$$each"; break; }; done)
VENV := .venv
RUN := $(VENV)/bin/python
# How many files of tests run in parallel: half of their time is waiting for servers.
TESTS_AT_ONCE ?= 2
REMEDY := install one of them, or pass its path with make PYTHON=/path/to/python3.13
supported = $(if $(1),$(if $(shell "$(1)" $(IS_SUPPORTED) && echo yes),$(1),$(error PYTHON=$(1) is not Python 3.11, 3.12 or 3.13: $(REMEDY))),$(error Python 3.11, 3.12 or 3.13 is needed: $(REMEDY)))
SETUP = @"$(call supported,$(PYTHON))" -I local_stack/install.py
SERVICES := 01-DataProducer 02-StreamProcessing 03-ElasticsearchSink-Alert
# The variables of other installations of Python, Java, Spark and Hadoop on this machine.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYSPARK_PYTHON PYSPARK_DRIVER_PYTHON PYSPARK_SUBMIT_ARGS
unexport SPARK_HOME SPARK_CONF_DIR SPARK_DIST_CLASSPATH SPARK_SUBMIT_OPTS HADOOP_HOME HADOOP_CONF_DIR YARN_CONF_DIR
unexport JAVA_TOOL_OPTIONS _JAVA_OPTIONS JDK_JAVA_OPTIONS CLASSPATH KAFKA_OPTS KAFKA_HEAP_OPTS ES_JAVA_OPTS ES_PATH_CONF
export PYTHONNOUSERSITE := 1

.PHONY: installed-demo installed-tests demo stack status verify chaos test unit lint types bench plots pictures lock clean-data clean
.DEFAULT_GOAL := help

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

ifdef PIPELINE
export PIPELINE
endif
# Only from the command line, and as written: a variable of the shell may have one of these names.
ifeq ($(origin SOURCE),command line)
demo: export PRODUCER_SOURCE = $(value SOURCE)
endif
ifeq ($(origin QUERY),command line)
demo: export PRODUCER_QUERY = $(value QUERY)
endif
ifeq ($(origin SPEED),command line)
demo: export PRODUCER_SPEED = $(value SPEED)
endif
demo: installed-demo ## run the whole pipeline on real servers; PIPELINE=examples/sensors/pipeline.py for another event, ARGS="--for 60 --no-view" for a headless minute; SOURCE=file QUERY=... SPEED=... to replay a file
	@$(RUN) -I -m local_stack demo $(ARGS)

stack: installed-demo ## run Kafka and Elasticsearch alone
	@$(RUN) -I -m local_stack stack $(ARGS)

status: installed-demo ## show health, lag, rates and what needs attention in a running demo; ARGS=--watch to repeat, ARGS=--json for scripts
	@$(RUN) -m observer $(ARGS)

verify: installed-demo ## compare topics, lake, tables, documents and alerts of a running demo; ARGS="--json report.json"
	@$(RUN) -m verify $(ARGS)

chaos: installed-demo ## run the pipeline under load and a seeded schedule of faults, and compare everything; ARGS="--seed 7 --minutes 30"
	@$(RUN) -m chaos $(ARGS)

test: installed-tests ## run all tests, against real servers; ARGS="tests/unit" for some, ARGS="-n 0 -s" to see their output
	@$(RUN) -m pytest -n $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder $(ARGS)

unit: installed-tests ## run the unit tests and the examples in docstrings: seconds
	@$(RUN) -m pytest $(addprefix --ignore=tests/,integration e2e compose) $(ARGS)

lint: installed-tests ## check with ruff: lint and format
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

types: installed-tests ## check types with mypy, strict
	@$(RUN) -m mypy

bench: installed-tests installed-demo ## measure throughput and latency; ARGS="throughput latency" for some benchmarks, ARGS=peers for other engines
	@$(RUN) -m benchmarks $(ARGS)

plots: installed-tests ## draw the benchmarks' charts and write the table of peers, from docs/benchmarks.json
	@$(RUN) -m benchmarks.plots docs/benchmarks.json img
	@$(RUN) -m benchmarks.peers.table docs/benchmarks.json docs/performance.md

pictures: installed-tests ## take the pictures in img/ from a running demo: some minutes, needs Chromium
	@"$(PYTHON)" -m venv $(VENV)/recorder && $(VENV)/recorder/bin/pip install --quiet --disable-pip-version-check --require-hashes -r img/requirements.txt
	@$(RUN) -m img

clean-data: ## delete all data of the local stack
	rm -rf .data

clean: clean-data ## delete the virtual environment too
	rm -rf $(VENV)

PIN := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
lock: ## pin the newest versions that the requirements.in files allow (needs uv)
	@$(PIN) tests/requirements.in -o tests/requirements.txt
	@for folder in $(SERVICES) live_page local_stack; do \
	  $(PIN) -c tests/requirements.txt $$folder/requirements.in -o $$folder/requirements.txt || exit 1; \
	done
	@$(PIN) --allow-unsafe local_stack/bootstrap.in -o local_stack/bootstrap.txt
	@$(PIN) benchmarks/peers/pathway.in -o benchmarks/peers/pathway.txt
	@$(PIN) --unsafe-package none img/requirements.in -o img/requirements.txt

installed-demo:
	$(SETUP) demo

installed-tests:
	$(SETUP) tests
