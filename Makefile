# make demo: a result on the built-in corpus. make test: the whole suite. make docs: the site, into site/.
# make notebooks: runs those of analysis/notebooks. All of them set up .venv first. make gpu: the GPU's tests and
# figures, with whatever Python there is.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: setup demo test lint docs notebooks gpu clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  f"Stillwave needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}; try make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# Without what they ask for: encodec torchaudio, hearvalidator TensorFlow. Neither is needed here.
	$(VENV)/bin/python -m pip install --disable-pip-version-check --no-deps encodec==0.1.1 hearvalidator==2021.0.2
	@touch $@

demo: setup
	dvc repro
	dvc metrics show
	@echo "Look at reports/index.html and reports/explorer.html, or dvc plots show"

test: setup
	pytest -n auto --dist loadfile --no-loadscope-reorder

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
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis
