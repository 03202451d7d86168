# make demo    train a small model for a minute and read what it writes
# make test    what CI runs: lint, types, tests
# make faults  kill, fill, break and forge what charlstm writes and reads, at length: half an hour
#
# torch comes from the index of its CPU builds; for CUDA: make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130

PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test faults bench clean

demo: .venv/installed
	$(BIN)/charlstm train --preset demo -o runs/demo --overwrite
	@echo
	$(BIN)/charlstm sample -m runs/demo --length 500 --temperature 0.7

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto

faults: .venv/installed-test
	$(BIN)/python -m tests.faults

bench: .venv/installed-test
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/sampling.py --batches
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/saving.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/bidirectional.py
	$(BIN)/python benchmarks/presets.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/cells.py corpora/english.txt --time 20

# torch alone may look at its own index, and only once: every other package comes from where pip usually looks.
.venv/torch: constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install --no-deps --timeout 15 --retries 1 --extra-index-url $(TORCH_INDEX) -c constraints.txt torch
	touch $@

.venv/installed: .venv/torch pyproject.toml
	$(PIP) install -c constraints.txt -e '.[fast]'
	touch $@

.venv/installed-test: .venv/torch pyproject.toml
	$(PIP) install -c constraints.txt -e '.[test]'
	touch $@ .venv/installed

clean:
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
