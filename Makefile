# Every target builds .venv when it is missing or when the dependencies change; python3 with venv is all it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv run test check bench docs clean

venv: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: venv
	$(BIN)/stillroom run abacus --on ray

test: venv
	$(BIN)/python -m pytest

check: venv
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv
	$(BIN)/python benchmarks

docs: venv
	$(BIN)/python tools/reference.py build/api

clean:
	rm -rf .venv stills build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
