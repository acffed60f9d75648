# argmax-vae: `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-lowest lint format figure1 figure2 section61 reproduce bench report clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  %-12s %s\n", $$1, $$2}'

install: $(VENV)/installed  ## create .venv with the tested versions of everything

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install  ## train estimators on 8×8 digits, print and plot the comparison (about two and a half minutes)
	$(BIN)/argmax-vae reproduce demo

test: install  ## run the tests, on two processors if there are
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 2 --dist worksteal

test-slow: install  ## run the tests that take minutes, too
	$(BIN)/python -m pytest -m "slow or not slow"

LOWEST := $(VENV)/lowest
LOWEST_TORCH := $(shell sed -nE 's/^ *"(torch|torchvision)>=([0-9.]+),.*/\1==\2.*/p' pyproject.toml)

$(LOWEST)/installed: $(VENV)/installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	grep -vE '^(torch|torchvision|triton|setuptools|cuda-[a-z]+|nvidia-[a-z0-9-]+)==' constraints.txt > $(LOWEST)/constraints.txt
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --constraint $(LOWEST)/constraints.txt \
		--requirements pyproject.toml $(LOWEST_TORCH:%='%') pytest pytest-xdist beartype
	touch $@

test-lowest: $(LOWEST)/installed  ## run the tests of compilation on the lowest supported version of PyTorch
	PYTHONPATH=src $(LOWEST)/bin/python -m pytest --numprocesses auto --maxprocesses 2 --dist worksteal -m "slow or not slow" \
		tests/training/test_compilation.py tests/training/test_steps.py tests/training/test_training.py::test_compiled_steps_equal_eager_ones

lint: install  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

figure1: install  ## train the model of the paper's Figure 1 and measure every estimator's gradient on it (resumes)
	$(BIN)/argmax-vae reproduce figure1

figure2: install  ## train and write the paper's Figure 2 (hours on a CPU; resumes)
	$(BIN)/argmax-vae reproduce figure2
	$(BIN)/argmax-vae reproduce figure2_control_variates
	$(BIN)/argmax-vae reproduce figure2_imle

section61: install  ## train and write the comparison of the paper's section 6.1
	$(BIN)/argmax-vae reproduce section61

bench: install  ## measure steps per second into results/speed.csv
	$(BIN)/argmax-vae bench --latents 20x10 20x2 1x40 --seeds 1 4 16 --estimators direct --output results/speed.csv

reproduce: install  ## train and write every table of the paper and beyond it (days on a CPU; resumes)
	$(BIN)/argmax-vae reproduce all

report: install  ## write all tables and figures from the files of record, and the pages that show them
	$(BIN)/argmax-vae report all

clean:  ## remove what the targets made, except runs/ and results/
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
