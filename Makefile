# Every target installs what it needs, once. Requires Python 3.11 and make.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help env demo test test-all test-matrix test-torchcodec test-browser test-ray faults bench gpu lint docs
help:
	@echo "make demo             generate the motion set, pre-train and fine-tune a micro Hiera, test it, write a report"
	@echo "make test             lint, type check, default tests (under five minutes on two cores)"
	@echo "make test-all         make test, then the slow and fault tests"
	@echo "make test-matrix      default tests with Python 3.11 to 3.13, and the oldest and newest torch"
	@echo "make test-torchcodec  install FFmpeg and torchcodec, test that decoder"
	@echo "make test-browser     install chromium, check report, website and demo page at desktop and phone width"
	@echo "make test-ray         feature extraction on a local Ray cluster of two nodes"
	@echo "make faults           fault injection at full counts; writes RELIABILITY.md (half an hour)"
	@echo "make gpu              the tests that need a GPU, and all measurements on it (ten minutes); writes benchmarks/results"
	@echo "make bench            speed benchmarks for benchmarks/results (half an hour on an idle machine)"
	@echo "make docs             build this documentation into docs/_build/html, warnings as errors"
	@echo "make lint             ruff and mypy alone"
	@echo "make env              the environment in $(VENV) alone"

env: $(READY)

# One resolve for all packages, so that torch and torchvision match.
$(READY): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

# Videos, masked pre-training, fine-tuning from it and from scratch, tests, report. A second run
# reuses what is there.
demo: $(READY)
	$(BIN)/python -m hiera_video demo

# Two files of tests at once, each on one thread.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: lint
	$(PARALLEL)

test-all: test
	$(PARALLEL) tests -m "slow or fault"

# uv makes an environment for each, in .matrix; writes benchmarks/results/test_matrix.json.
test-matrix: $(READY)
	$(BIN)/python benchmarks/test_matrix.py

# torchcodec uses the system's FFmpeg, which is installed as root if it is missing.
test-torchcodec: $(READY)
	command -v ffmpeg > /dev/null || (apt-get update -qq && apt-get install -y -qq ffmpeg)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[torchcodec]'
	TEST_TORCHCODEC=1 $(BIN)/python -m pytest tests/video/test_third_party.py

# Installs the system's chromium as root if it is missing. REPORT=… PICTURE=… also checks and draws that page.
test-browser: $(READY)
	command -v chromium > /dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[browser]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python -m pytest tests/browser/check_report.py tests/browser/check_site.py tests/browser/check_app.py

# A minute on idle cores: two Ray nodes, with a process for each actor and task.
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

# Resumes where it was interrupted; --only and --minutes: benchmarks/gpu_check.py --help.
gpu: $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/gpu_check.py --out benchmarks/results --minutes 20 --resume
	$(BIN)/python benchmarks/gpu_page.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Offline: intersphinx and fonts are not used.
docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"
