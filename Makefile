# make demo      train a small model for a minute and print a sample
# make quick     lint, types and fast tests: under 30 seconds once caches are warm
# make test      everything that needs Python packages only
# make test-all  what also needs the programs in tests/packages.txt, and the long fault campaign
# make test-gpu  what needs an NVIDIA GPU, which neither of them has
# make fix       format the code and fix what the linter can fix
# make docs      regenerate docs/commands.md and the table of presets in README.md
# make coverage  line coverage of the tests
# make model     train the model that ships with charlstm
# make bench     every benchmark that needs no corpus of its own
# make release   build the distributions, check their metadata, test the wheel
#
# torch comes from the index of its CPU builds; for CUDA: make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130

PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo quick lint test test-gpu test-all fix docs coverage model bench release clean

demo: .venv/installed
	$(BIN)/charlstm train --preset demo -o runs/demo --overwrite
	@echo
	$(BIN)/charlstm sample -m runs/demo --length 500 --temperature 0.7

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 charlstm
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin charlstm

quick: lint
	$(BIN)/pytest -n auto -m "not slow and not programs and not gpu"

test: lint
	$(BIN)/pytest -n auto -m "not programs and not long and not gpu"

test-gpu: .venv/installed-test
	$(BIN)/pytest -m gpu

test-all: .venv/installed-test
	$(BIN)/pytest -n auto -m "programs or long"
	$(BIN)/python -m tests.faults --kills 60 --files 4000

fix: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-test
	$(BIN)/python docs/generate.py

coverage: .venv/installed-test
	$(BIN)/pytest -n auto -m "not programs and not gpu" --cov=charlstm --cov-report=term:skip-covered

# One thread, so that the number of cores does not matter. The same machine writes the same bytes.
model: .venv/installed
	$(BIN)/charlstm train corpora/english.txt --preset tiny --hidden 304 --dropout 0.3 --schedule constant --lr 6e-3 \
		--epochs 22 --patience 5 --ema 0.9997 --set training.weight_decay=0.1 --threads 1 \
		--about "Small English prose, written for charlstm. The model that ships with it." --license MIT \
		-o runs/builtin --overwrite
	$(BIN)/charlstm export -m runs/builtin --charlstm runs/builtin/half.safetensors --weights fp16
	cp runs/builtin/half.safetensors charlstm/storage/builtin.safetensors

bench: .venv/installed-test
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/sampling.py --batches
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/writing.py
	$(BIN)/python benchmarks/saving.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/bidirectional.py
	$(BIN)/python benchmarks/presets.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/tracking.py
	$(BIN)/python benchmarks/cells.py corpora/english.txt --time 20

# The wheel is tested in an environment of its own that borrows only the dependencies of .venv.
release: .venv/installed-test
	$(PIP) install -c constraints.txt twine
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv dist/venv
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> $$(echo dist/venv/lib/python*/site-packages)/dependencies.pth
	dist/venv/bin/pip --disable-pip-version-check -q install --no-deps dist/*.whl
	dist/venv/bin/charlstm --version
	cd dist && venv/bin/charlstm sample -l 80
	cd dist && venv/bin/charlstm train --max-time 3s --hidden 16 -o run -q && venv/bin/charlstm sample -m run -l 80

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
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
