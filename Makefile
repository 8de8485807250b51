# Every target sets up what it needs, once. Needs only Python 3.11 and make.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help env demo test test-torchcodec test-browser test-ray faults bench lint
help:
	@echo "make demo   make the motion set, train a micro Hiera on it, test it with several views, draw the report"
	@echo "make test   lint, type check, tests"
	@echo "make test-torchcodec   install FFmpeg and torchcodec, test that decoder"
	@echo "make test-browser   install chromium, check the report in it, at a desk and on a phone"
	@echo "make test-ray   feature extraction on a local Ray cluster of two nodes"
	@echo "make faults kills, full disks, damaged checkpoints, NaNs in real runs; writes RELIABILITY.md (ten minutes)"
	@echo "make bench  speed of the models and of the data layer, for benchmarks/results (an idle machine, half an hour)"
	@echo "make lint   ruff and mypy alone"
	@echo "make env    only the environment in $(VENV)"

env: $(READY)

# uv resolves everything at once, so that nothing pulls a torch that torchvision was not built for.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

# The whole way: videos, masked pre-training, fine-tuning from it, multi-view test, report. A second run reuses all of it.
demo: $(READY)
	$(BIN)/python datasets/motion/prepare.py --out data/motion
	$(BIN)/python tools/train_net.py --cfg configs/motion_hiera_micro_mae.yaml
	$(BIN)/python tools/train_net.py --cfg configs/motion_hiera_micro.yaml model.pretrained=runs/motion_hiera_micro_mae
	$(BIN)/python tools/test_net.py --cfg configs/motion_hiera_micro.yaml
	@echo "look at runs/motion_hiera_micro/report.html and runs/motion_hiera_micro_mae/reconstructions/latest.png"

test: lint
	$(BIN)/python -m pytest

# torchcodec takes FFmpeg from the system; as root, or with FFmpeg there already
test-torchcodec: $(READY)
	command -v ffmpeg > /dev/null || (apt-get update -qq && apt-get install -y -qq ffmpeg)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[torchcodec]'
	TEST_TORCHCODEC=1 $(BIN)/python -m pytest tests/data/test_backends.py

# chromium comes from the system, as root, unless it is there; REPORT=… PICTURE=… checks that page too and draws it
test-browser: $(READY)
	command -v chromium > /dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[browser]'
	$(BIN)/python -m pytest tests/browser/check_report.py

# a minute on idle cores: two Ray nodes, and a process each for actors and tasks
test-ray: $(READY)
	$(BIN)/python -m pytest tests/features/check_ray.py

faults: $(READY)
	$(BIN)/python benchmarks/data_faults.py
	$(BIN)/python benchmarks/features_faults.py
	$(BIN)/python benchmarks/faults.py

bench: $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python tools/benchmark.py model --size tiny small base base_plus large huge
	$(BIN)/python tools/benchmark.py model --dtype bfloat16
	$(BIN)/python tools/benchmark.py model --images --size tiny base large --batch 8
	$(BIN)/python tools/benchmark.py train
	$(BIN)/python tools/benchmark.py mae
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/speed_page.py
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/data_samples.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
