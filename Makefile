# make demo   the whole pipeline on synthetic cells: prepare, fine-tune, evaluate, predict, analyse
#             make demo-scratch trains from random weights instead
# make test   the tests but the slow ones, make test-slow those; make lint checks style and types
# make fuzz   damages files and kills runs for longer
# make test-napari   the tests of the docks in napari, in a window that Xvfb draws into memory
# make docs   these pages as a site in build/docs; make tutorials follows the tutorials as they are typed
# Each sets itself up in $(VENV) first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= outputs/demo
CELL = $(DEMO)/data/volumes/phantom_1000
CHECKPOINT = $(DEMO)/train/checkpoints/isg_mask_rcnn_best.pth

.PHONY: demo demo-scratch test test-slow test-napari install-napari fuzz docs tutorials lint format install
.DEFAULT_GOAL := demo

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/installed

# The steps of a lab with a few labelled cells: fine-tune the network that comes with isgseg.
demo: CELLS = 'source.phantom.train_seeds=[0,1,2,3]'
demo: EXPERIMENT = demo
# The same from random weights, on more cells.
demo-scratch: CELLS = 'source.phantom.train_seeds=[0,1,2,3,4,5,6,7,8,9,10,11]'
demo-scratch: EXPERIMENT = quickstart

demo demo-scratch: install
	$(BIN)/isgseg-prepare source=phantom $(CELLS) patches.slice_step=4 patches.z_context=2 output_dir=$(DEMO)/data overwrite=true hydra.run.dir=$(DEMO)/prepare
	$(BIN)/isgseg-train experiment=$(EXPERIMENT) data.root=$(DEMO)/data overwrite=true hydra.run.dir=$(DEMO)/train
	$(BIN)/isgseg-evaluate ckpt_path=$(CHECKPOINT) data.root=$(DEMO)/data volumes=$(CELL).mrc labels=$(CELL)_labels.mrc hydra.run.dir=$(DEMO)/evaluate
	$(BIN)/isgseg-predict ckpt_path=$(CHECKPOINT) volumes=$(CELL).mrc output_dir=$(DEMO)/labels overwrite=true hydra.run.dir=$(DEMO)/predict
	$(BIN)/isgseg-analyse volume=$(CELL).mrc labels=$(DEMO)/labels/phantom_1000_labels.tif output_dir=$(DEMO)/analysis overwrite=true hydra.run.dir=$(DEMO)/analyse
	@echo; echo "Scores on the cell that training never saw ($(DEMO)/evaluate/metrics.json):"
	@sed -n '/^  *true/,/^all/p; /^  *box/,/^recall/p' $(DEMO)/evaluate/evaluate.log
	@echo "Labels:   $(DEMO)/labels/phantom_1000_labels.tif"
	@echo "Table:    $(DEMO)/analysis/phantom_1000_granules.csv"
	@echo "Figure:   $(DEMO)/analysis/phantom_1000_granules.png"
	@echo "Report:   $(DEMO)/analysis/phantom_1000_report.html"
	@echo "Training: $(BIN)/tensorboard --logdir $(DEMO)/train"

# A process a core, up to four; each takes a gigabyte.
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test: install
	$(PYTEST)

test-slow: install
	$(PYTEST) -m 'slow and not fuzz and not docs'

fuzz: install
	$(BIN)/python -m pytest -m fuzz --timeout 3600

$(VENV)/napari-installed: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[napari]' PySide6-Essentials pytest-qt
	touch $@

install-napari: $(VENV)/napari-installed

test-napari: $(VENV)/napari-installed
	xvfb-run -a -s "-screen 0 1400x900x24" $(BIN)/python -m pytest -m 'not fuzz' tests/napari/test_docks.py tests/napari/test_following.py tests/napari/test_files.py

$(VENV)/docs-installed: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Warnings are errors, and so is a link that leads nowhere. Nothing is loaded from a network.
docs: $(VENV)/docs-installed
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs
	@echo "The site: build/docs/index.html"

tutorials: $(VENV)/docs-installed
	$(BIN)/python -m pytest -m docs --timeout 1800

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
