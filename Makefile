# Two commands for a new user: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# CPU builds of PyTorch: one known release, so that nobody downloads gigabytes of CUDA to run the tests.
TORCH ?= torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help demo test check golden bench gpu clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/convert.done ## build the INT8 engine from the shipped model and read the demo pictures
	$(BIN)/python convert/build_engine.py --int8 -o build/edge-int8.engine --force
	$(BIN)/python runtime/recognize.py --engine build/edge-int8.engine calib_data/demo --sheet build/demo.png --force
	@echo "look at build/demo.png"

test: check ## everything CI runs: style, types, tests
	$(BIN)/python -m pytest

check: $(VENV)/dev.done ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

golden: $(VENV)/dev.done ## make the tiny test model again (it is checked in)
	$(BIN)/python tests/tiny/make_tiny.py

bench: $(VENV)/dev.done ## latency and memory on this machine, into benchmarks/results
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python benchmarks/random_checkpoint.py r31 -o build/r31-random.safetensors
	for precision in fp32 int8; do \
	  $(BIN)/python convert/build_engine.py --$$precision -o build/edge-$$precision.engine --force && \
	  $(BIN)/python convert/build_engine.py build/r31-random.safetensors --$$precision --calib-images 64 \
	    -o build/r31-$$precision.engine --force || exit 1; \
	done
	$(BIN)/python benchmarks/latency.py build/edge-int8.engine build/edge-fp32.engine build/r31-int8.engine \
	  build/r31-fp32.engine --peer ppocrv4 -o benchmarks/results/latency-cpu.json
	$(BIN)/python benchmarks/footprint.py build/edge-int8.engine build/edge-fp32.engine -o benchmarks/results/footprint-cpu.json

gpu: $(VENV)/dev.done ## on a machine with an NVIDIA GPU and TensorRT: engines, GPU tests, latency
	for precision in fp32 fp16 int8; do \
	  $(BIN)/python convert/build_engine.py --$$precision --backend tensorrt --timing-cache build/timing.cache \
	    -o build/edge-trt-$$precision.engine --force || exit 1; \
	done
	REQUIRE_GPU=1 $(BIN)/python -m pytest -m gpu
	$(BIN)/python benchmarks/latency.py build/edge-trt-fp32.engine build/edge-trt-fp16.engine build/edge-trt-int8.engine \
	  -o benchmarks/results/latency-gpu.json

clean: ## remove what make made
	rm -rf $(VENV) build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/convert.done: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[convert]'
	@touch $@

$(VENV)/dev.done: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
