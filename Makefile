# Each target sets up .venv itself, once for each change of pyproject.toml.
#
#   make serve ARGS='--listen 127.0.0.1:2424'
#   make test ARGS='tests/protocol -k data'
#   make bench ARGS='throughput'

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
READY := $(BIN)/ready

.DELETE_ON_ERROR:
.PHONY: serve test compile test-compiled coverage bench docs lint mutation clean
.DEFAULT_GOAL := test

serve: $(READY)-server-gevent
	$(BIN)/lmtp-server serve $(ARGS)

test: $(READY)-test
	$(BIN)/python -m pytest $(ARGS)

# The tests of protocol, store and adapters, with protocol and store compiled to C.
test-compiled: $(READY)-test
	$(BIN)/python -m tests.compiled $(ARGS)

# Tests that draw their cases would reach a line today and not tomorrow.
coverage: $(READY)-test
	$(BIN)/python -m coverage run -m pytest -q -m 'not hypothesis and not exhaustive' tests/protocol
	$(BIN)/python -m coverage report

# Protocol and store compiled to C, for the servers that the benchmarks name `-compiled`.
compile: $(READY)-test
	$(BIN)/python -m benchmarks.compiled

bench: $(READY)-server-gevent-bench
	$(BIN)/python -m benchmarks $(or $(ARGS),throughput)

docs: $(READY)-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html $(ARGS)

lint: $(READY)-lint
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

mutation: $(READY)-mutation
	$(BIN)/python -m tests.mutation $(ARGS)

clean:
	rm -rf .venv build dist mutants docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*

# One stamp for each set of extras: ready-server-gevent stands for '.[server,gevent]'.
empty :=
space := $(empty) $(empty)
comma := ,

$(READY)-%: pyproject.toml $(BIN)/created
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-e '.[$(subst -,$(comma),$*)]'
	@touch $@

$(BIN)/created:
	@command -v '$(PYTHON)' >/dev/null || { \
		echo "make: no $(PYTHON) found: install Python 3.11 or newer, or name one with PYTHON=..." >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $(PYTHON) is too old, Python 3.11 or newer is needed: name one with PYTHON=..." >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: $(PYTHON) cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	'$(PYTHON)' -m venv .venv
	@touch $@
