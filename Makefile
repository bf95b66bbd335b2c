# `make train` and `make test` need Python >= 3.11 and nothing else.
PYTHON ?= python3
PRESET ?= fast
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

# without kept bytecode every process compiles pixelq anew, and every test run all tests
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test test-gpu test-fast test-trackio lint docs notebook wheel clean

train: $(VENV)/.installed
	$(BIN)/pixelq train $(PRESET) $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then $(MAKE) test-gpu; fi

# by themselves: all other tests have the GPU hidden
test-gpu: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m gpu

# Trackio needs pillow below 13: an environment of its own over the other one
test-trackio: $(VENV)/.installed-dev
	$(BIN)/python -m venv $(VENV)/trackio
	$(BIN)/python -c 'import sys; print("$(CURDIR)/src", *(p for p in sys.path if p.endswith("site-packages")), sep="\n")' \
	  > "$$($(VENV)/trackio/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pixelq.pth"
	grep -v '^pillow==' constraints.txt > $(VENV)/trackio/constraints.txt
	$(VENV)/trackio/bin/python -m pip install -q -c $(VENV)/trackio/constraints.txt trackio
	$(VENV)/trackio/bin/python -m pytest tests/test_trackers.py -k trackio

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo linux darwin win32 | xargs -n 1 -P 3 sh -c '$(BIN)/mypy --platform $$0 --cache-dir .mypy_cache/$$0 || { echo "on $$0"; exit 1; }'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pixelq needs Python >= 3.11: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,docs,onnx,wandb,mlflow,minari,hub,sb3,tune,ray,envs,doom]'
	touch $@ $(VENV)/.installed

# the site, into site/; any warning ends it. Pages that the code or the results write must be up to date
docs: $(VENV)/.installed-dev
	$(BIN)/python docs/maker/reference.py --check
	$(BIN)/python benchmarks/write_results.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# runs the tutorial from top to bottom and saves its outputs in it
notebook: $(VENV)/.installed-dev
	$(BIN)/python examples/execute_notebook.py examples/deep_q_breakout.ipynb

# for an index: kernels for each instruction set inside; on Linux its tag tells the oldest glibc that it runs with
wheel: $(VENV)/.installed-dev
	rm -rf build dist
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[wheel]'
	$(BIN)/python -c 'from setuptools.build_meta import build_sdist; build_sdist("dist")'
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .
	@for wheel in dist/*-linux_*.whl; do if [ -e "$$wheel" ]; then \
	  PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m auditwheel repair -w dist "$$wheel" && rm "$$wheel" || exit 1; fi; done
	@ls dist

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
