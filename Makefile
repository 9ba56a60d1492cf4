# Everything a fresh machine needs: Python 3.11 or later with venv, and make. uv is used when present.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CORE := CMakeLists.txt $(wildcard native/*)

.DEFAULT_GOAL := help
.PHONY: help setup serve test sanitize check bench docs lock clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## create .venv from the lock file

$(READY): requirements.lock pyproject.toml $(CORE)
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) .venv && \
	  uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
	  $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $@

serve: setup ## fetch the default model by digest, serve it, answer one request
	@contract=examples/smollm2.yaml; \
	if ! $(BIN)/python -c "import salver._native" 2>/dev/null; then \
	  echo "No native core here (set-up found no C++ compiler): serving with the NumPy runner." >&2; \
	  contract=examples/smollm2-numpy.yaml; \
	fi; \
	$(BIN)/salver pull $$contract && \
	$(BIN)/salver serve $$contract --ask "What is the capital of France?"

# Two runs over benchmarks/: its scripts import what lies beside them, and there are two bench.py.
check: setup ## lint, types and import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=benchmarks:benchmarks/engine $(BIN)/mypy benchmarks/*.py benchmarks/engine
	MYPYPATH=benchmarks:benchmarks/engine:benchmarks/serving $(BIN)/mypy benchmarks/serving
	$(BIN)/lint-imports --no-logo

test: check ## check, then every test
	$(BIN)/python -m pytest

# CPython leaves much allocated at exit, all of it below frames of the interpreter, and so is what the
# core allocates: no list of suppressions tells the two apart, and leaks are not looked for.
sanitize: setup ## the core's tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@PATH="$(CURDIR)/$(BIN):$$PATH"; \
	CXX=$(CXX) cmake -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DSALVER_SANITIZE=ON -DCMAKE_PREFIX_PATH="$$(python -m nanobind --cmake_dir)" && \
	cmake --build build/sanitize && \
	LD_PRELOAD="$(foreach lib,asan ubsan stdc++,$(shell $(CXX) -print-file-name=lib$(lib).so))" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	SALVER_NATIVE="$$(ls build/sanitize/_native*.so)" python -m pytest --capture=sys tests/native

bench: setup ## measure, and print the report
	$(BIN)/python benchmarks/batching.py
	$(BIN)/python benchmarks/engine/http_share.py
	$(BIN)/python benchmarks/engine/bench.py

docs: setup ## rewrite the generated parts of docs/
	$(BIN)/python docs/generate.py

lock: ## pin every dependency anew (needs uv)
	uv pip compile --quiet --upgrade pyproject.toml --group dev --universal --python-version 3.11 \
	  --generate-hashes --custom-compile-command "make lock" --output-file requirements.lock

clean: ## remove everything that make made
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
