# make generate PROMPT="..."   an image, its entity map and a JSON record
# make test                    the tests
# make floors                  the kernels' and the sampler's tests with the oldest torch and Triton, and other Pythons
# make fuzz [EXAMPLES=5000]    properties of the parser and the sampler on random input
# make datasheet               what the kernels' machine code uses, on any machine; writes the committed tables
# make gpu [PART=...]          everything that only a CUDA device can tell, in eight minutes (docs/gpu.md); ARGS=--toy anywhere
# make bench                   the attention benchmarks on this machine, and their pictures
# The first two make .venv first if it is missing or older than the files that say what goes in it.

PROMPT ?= a red circle to the left of a blue square
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
# the first interpreter that runs and is new enough
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: generate test floors fuzz lint clean datasheet gpu bench

generate: $(VENV)/installed
	@$(BIN)/attnmod generate "$(PROMPT)" $(ARGS)

# Two processes of one thread each: together they finish in little more than half the time of one.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

# Each in a venv of its own, with what it ran said in a line: the oldest torch and Triton that are supported (whose
# interpreter needs an older numpy), then every newer Python that is there with what constraints.txt pins.
FLOOR := torch==2.10.0 triton==3.6.0 numpy<2.4
NEWER := $(shell for p in python3.12 python3.13; do $$p -c '' >/dev/null 2>&1 && echo $$p; done)

floors: $(VENV)/installed $(NEWER:%=.venv-%/installed) .venv-oldest/installed
	@failed=0; for venv in .venv-oldest $(NEWER:%=.venv-%); do \
		$$venv/bin/python -c 'import platform, torch, triton; print("--", platform.python_version(), "torch", torch.__version__, "triton", triton.__version__)'; \
		OMP_NUM_THREADS=1 $$venv/bin/python -m pytest -q -n $(JOBS) --dist loadfile tests/kernels tests/sampler $(ARGS) || failed=1; \
	done; exit $$failed

.venv-oldest/installed: $(VENV)/installed
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(FLOOR:%="%") -e ".[test,bench]"
	@touch $@

.venv-python%/installed: $(VENV)/installed
	@test -x $(@D)/bin/python || python$* -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,bench]"
	@touch $@

# text that nobody writes, 5,000 pieces of it for every property of the parser, and as much for the sampler
fuzz: $(VENV)/installed
	ATTNMOD_FUZZ=$(or $(EXAMPLES),5000) $(BIN)/python -m pytest tests/parser/test_fuzz.py tests/sampler/test_fuzz.py $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@mkdir -p .pyright/attnmod && ln -sfn $(addprefix $(CURDIR)/,attnmod/__init__.py attnmod/__main__.py attnmod/py.typed kernels parser sampler benchmarks) .pyright/attnmod/
	$(BIN)/pyright

OLD_TRITON := .venv-triton-3.6

datasheet: $(VENV)/installed $(OLD_TRITON)/installed
	$(BIN)/python -m benchmarks.datasheet --record $(ARGS)
	$(OLD_TRITON)/bin/python -m benchmarks.datasheet --record $(ARGS)

# the oldest Triton that is supported, in a venv of its own; its interpreter needs an older numpy, too
$(OLD_TRITON)/installed: $(VENV)/installed
	@test -x $(OLD_TRITON)/bin/python || $(PYTHON) -m venv $(OLD_TRITON)
	@$(OLD_TRITON)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(OLD_TRITON)/bin/python -m pip install --quiet --disable-pip-version-check "triton==3.6.0" "numpy<2.4"
	@touch $@

# The python3 that is there, with the torch and the triton that it has: nothing is installed and nothing downloaded. The
# script ends by itself in eight minutes; should it not, it is asked to after LIMIT seconds, and then it must.
LIMIT ?= 480

gpu:
	$(if $(shell command -v timeout),timeout --kill-after=20 $(LIMIT)) python3 -m benchmarks.gpu $(if $(PART),--part $(PART)) $(ARGS)

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.bench_kernels $(ARGS)

$(VENV)/installed: pyproject.toml setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "attnmod needs Python 3.11, 3.12 or 3.13 on the PATH (or make PYTHON=/path/to/python)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "could not make $(VENV): on Debian and Ubuntu, apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "Installing attnmod and what it needs into $(VENV) (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,bench]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
