# make generate PROMPT="..."   an image, its entity map and a JSON record
# make test                    the tests
# Both make .venv first if it is missing or older than the files that say what goes in it.

PROMPT ?= a red cube and a blue sphere
VENV := .venv
BIN := $(VENV)/bin
# the first interpreter that runs and is new enough
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: generate test lint clean

generate: $(VENV)/installed
	@$(BIN)/attnmod generate "$(PROMPT)" $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@mkdir -p .pyright/attnmod && ln -sfn $(addprefix $(CURDIR)/,attnmod/__init__.py attnmod/__main__.py attnmod/py.typed kernels parser sampler benchmarks) .pyright/attnmod/
	$(BIN)/pyright

$(VENV)/installed: pyproject.toml setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "attnmod needs Python 3.11, 3.12 or 3.13 on the PATH (or make PYTHON=/path/to/python)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "could not make $(VENV): on Debian and Ubuntu, apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "Installing attnmod and what it needs into $(VENV) (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,bench]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
