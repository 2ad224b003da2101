# make demo   the whole road on synthetic cells: prepare, train, evaluate, predict, analyse
# make test   the tests; make lint checks style and types
# Each sets itself up in $(VENV) first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= outputs/demo
CELL = $(DEMO)/data/volumes/phantom_1000
CHECKPOINT = $(DEMO)/train/checkpoints/isg_mask_rcnn_best.pth

.PHONY: demo test test-fast lint format install
.DEFAULT_GOAL := demo

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/isgseg-prepare data=phantom patches.slice_step=4 patches.context=2 output_dir=$(DEMO)/data overwrite=true hydra.run.dir=$(DEMO)/prepare
	$(BIN)/isgseg-train experiment=quickstart data.root=$(DEMO)/data hydra.run.dir=$(DEMO)/train
	$(BIN)/isgseg-evaluate ckpt_path=$(CHECKPOINT) data.root=$(DEMO)/data hydra.run.dir=$(DEMO)/evaluate
	$(BIN)/isgseg-predict ckpt_path=$(CHECKPOINT) volumes=$(CELL).mrc output_dir=$(DEMO)/labels overwrite=true hydra.run.dir=$(DEMO)/predict
	$(BIN)/isgseg-analyse volume=$(CELL).mrc labels=$(DEMO)/labels/phantom_1000_labels.tif output_dir=$(DEMO)/analysis hydra.run.dir=$(DEMO)/analyse
	@echo; echo "Scores on the cell that training never saw ($(DEMO)/evaluate/metrics.json):"
	@sed -n '/^  *box/,/^recall/p' $(DEMO)/evaluate/evaluate.log
	@echo "Labels:   $(DEMO)/labels/phantom_1000_labels.tif"
	@echo "Table:    $(DEMO)/analysis/granules.csv"
	@echo "Figure:   $(DEMO)/analysis/granules.png"
	@echo "Training: $(BIN)/tensorboard --logdir $(DEMO)/train"

test: install
	$(BIN)/python -m pytest

test-fast: install
	$(BIN)/python -m pytest -m 'not slow'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
