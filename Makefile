# Two commands for a new user: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# CPU builds of PyTorch: one known release, so that nobody downloads gigabytes of CUDA to run the tests.
TORCH ?= torch==2.13.0
# Folders of labelled crops that benchmarks read.
DATA ?= calib_data
# Words that each emulated CPU reads.
CROPS ?= 100

# What `make gpu` builds, tests and measures; more options for each program.
GPU_VENV := .venv-gpu
GPU_BACKEND ?= tensorrt
EDGE := runtime/robustscanner/models/edge.onnx
GPU_MODEL ?= $(EDGE)
GPU_BUILD ?= $(if $(filter tensorrt,$(GPU_BACKEND)),--timing-cache build/timing.cache)
GPU_TESTS ?=
GPU_LATENCY ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-cpus check pycuda cpp golden bench gpu kernels-sanitized clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/convert.done ## build the INT8 engine from the shipped model and read the demo pictures
	$(BIN)/python convert/build_engine.py --int8 -o build/small-int8.engine --force
	$(BIN)/python runtime/recognize.py --engine build/small-int8.engine calib_data/demo --sheet build/demo.png --force
	@echo "look at build/demo.png"

test: check ## everything CI runs: style, types, tests
	@if cmake/missing.sh; then $(MAKE) cpp; fi
	$(BIN)/python -m pytest

test-cpus: $(VENV)/dev.done ## models, training and tests on other CPUs: x86 with AVX2 only, Arm (qemu-user); CROPS=words emulated CPUs read
	$(BIN)/python tests/cpus/check.py --crops $(CROPS) $(BRIEF)

check: $(VENV)/dev.done ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pycuda: $(VENV)/dev.done ## PyCUDA for the tests of the GPU session, which need no GPU; takes nvcc and two minutes
	tests/cuda_driver/install_pycuda.sh $(BIN)/python

cpp: ## the C++ runtime: configure, build, test
	cmake/onnxruntime.sh cmake --preset release -D ROBUSTSCANNER_ONNXRUNTIME=ON
	cmake --build --preset release
	ctest --preset release

golden: $(VENV)/dev.done ## make the tiny test model again (it is checked in)
	$(BIN)/python tests/tiny/make_tiny.py

bench: $(VENV)/bench.done ## everything in benchmarks/results/report.html, measured here; DATA="folder …" for other words
	$(BIN)/python convert/build_engine.py $(EDGE) --fp32 --backend onnxruntime -o build/edge-fp32.engine --force
	$(BIN)/python convert/build_engine.py $(EDGE) --int8 --backend onnxruntime -o build/edge-int8.engine --force
	$(BIN)/python convert/build_engine.py --fp32 --backend onnxruntime -o build/small-fp32.engine --force
	$(BIN)/python convert/build_engine.py --int8 --backend onnxruntime -o build/small-int8.engine --force
	$(BIN)/python convert/build_engine.py --int8 --no-reduce-range --backend onnxruntime -o build/small-int8-8bit.engine --force
	$(BIN)/python benchmarks/latency.py build/edge-int8.engine build/edge-fp32.engine --seconds 12 --concurrency 1,2 \
	  -o benchmarks/results/latency-edge.json
	$(BIN)/python benchmarks/compare.py build/small-int8.engine build/small-int8-8bit.engine build/small-fp32.engine build/edge-int8.engine \
	  build/edge-fp32.engine --data $(DATA) --words 1500 --timed-words 24 \
	  --seconds 30 -o benchmarks/results/compare.json
	$(BIN)/python benchmarks/accuracy.py build/edge-fp32.engine build/edge-int8.engine --data $(DATA) \
	  -o benchmarks/results/accuracy-edge.json
	$(BIN)/python benchmarks/accuracy.py build/small-fp32.engine build/small-int8.engine build/small-int8-8bit.engine \
	  --data $(DATA) -o benchmarks/results/accuracy-small.json
	$(BIN)/python benchmarks/reliability.py build/small-int8.engine build/small-fp32.engine build/edge-int8.engine \
	  --data $(DATA) -o benchmarks/results/reliability.json
	$(BIN)/python benchmarks/lexicon.py build/small-int8.engine --data $(DATA) --words 250 -o benchmarks/results/lexicon.json
	$(BIN)/python benchmarks/constraints.py build/small-int8.engine -o benchmarks/results/constraints.json
	$(BIN)/python benchmarks/letters.py build/small-int8.engine build/edge-int8.engine -o benchmarks/results/letters.json
	$(BIN)/python benchmarks/serving.py build/small-int8.engine --peers ppocrv6 -o benchmarks/results/serving.json
	$(BIN)/python benchmarks/photos.py build/small-int8.engine build/edge-int8.engine -o benchmarks/results/photos.json || \
	  echo "left out: photos"
	$(BIN)/python benchmarks/footprint.py build/edge-int8.engine build/edge-fp32.engine -o benchmarks/results/footprint.json
	$(BIN)/python benchmarks/layer_sensitivity.py $(EDGE) --crops 128 --calib-images 128 -o benchmarks/results/sensitivity-edge.json \
	  --plot benchmarks/results/sensitivity-edge.svg
	$(BIN)/python benchmarks/gate_runs.py $(EDGE) -o benchmarks/results/gate-edge.json
	$(BIN)/python benchmarks/random_checkpoint.py r31 -o build/r31-random.safetensors
	$(BIN)/python convert/export_onnx.py build/r31-random.safetensors -o build/r31-random.onnx --force
	$(BIN)/python convert/build_engine.py build/r31-random.onnx --fp32 --backend onnxruntime --calib-images 8 \
	  -o build/r31-fp32.engine --force
	$(BIN)/python convert/build_engine.py build/r31-random.onnx --int8 --backend onnxruntime --calib-images 16 \
	  -o build/r31-int8.engine --force
	$(BIN)/python benchmarks/latency.py build/r31-int8.engine build/r31-fp32.engine --words 8 --batches 1,8 --rounds 4 \
	  --seconds 10 -o benchmarks/results/latency-r31.json
	$(BIN)/python benchmarks/layer_sensitivity.py build/r31-random.onnx --crops 3 --calib-images 8 \
	  -o benchmarks/results/sensitivity-r31.json --plot benchmarks/results/sensitivity-r31.svg
	$(BIN)/python benchmarks/report.py -o benchmarks/results/report.html --markdown benchmarks/results/report.md \
	  --update README.md docs/*.md runtime/robustscanner/models/README.md
	@echo "look at benchmarks/results/report.html"

gpu: $(GPU_VENV)/gpu.done ## on a machine with an NVIDIA GPU: engines, GPU tests, latency; GPU_BACKEND=tensorrt-rtx for TensorRT-RTX
	for precision in fp32 fp16 int8; do \
	  $(GPU_VENV)/bin/python convert/build_engine.py $(GPU_MODEL) --$$precision --backend $(GPU_BACKEND) $(GPU_BUILD) \
	    -o build/gpu-$$precision.engine --force || exit 1; \
	done
	REQUIRE_GPU=1 $(GPU_VENV)/bin/python -m pytest -m gpu tests/gpu $(GPU_TESTS)
	$(GPU_VENV)/bin/python benchmarks/latency.py build/gpu-fp32.engine build/gpu-fp16.engine build/gpu-int8.engine \
	  $(GPU_LATENCY) -o build/latency-gpu.json

kernels-sanitized: ## the CUDA kernels on the CPU, under ThreadSanitizer, AddressSanitizer and UBSan
	mkdir -p build/cuda
	for sanitizer in thread address,undefined; do \
	  g++ -std=c++20 -O1 -g -DROBUSTSCANNER_THREADS -fsanitize=$$sanitizer -fno-sanitize-recover=all -pthread \
	    tests/runtime/cuda/sanitized.cpp -o build/cuda/sanitized && build/cuda/sanitized || exit 1; \
	done

clean: ## remove what make made
	rm -rf $(VENV) $(GPU_VENV) build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# It sees the system's packages, for JetPack's TensorRT is one; where there is none, NVIDIA's wheels are taken.
$(GPU_VENV)/gpu.done: pyproject.toml
	$(PYTHON) -m venv --system-site-packages $(GPU_VENV)
	$(GPU_VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[cpu,gpu]'
	$(GPU_VENV)/bin/python -c 'import $(subst -,_,$(GPU_BACKEND))' || \
	  $(GPU_VENV)/bin/pip install --quiet --disable-pip-version-check '.[$(GPU_BACKEND)]'
	@touch $@

$(VENV)/convert.done: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[cpu,convert]'
	@touch $@

$(VENV)/dev.done: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'rapidocr==3.10.0' || \
	  echo "left out: rapidocr, whose encoder small starts from; its tests are skipped"
	@! command -v chromium google-chrome >/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check playwright || \
	  echo "left out: playwright, which opens the server's page in Chromium; its tests are skipped"
	@touch $@

$(VENV)/bench.done: pyproject.toml | $(BIN)/python # a peer that cannot be installed does not stop the others
	$(BIN)/pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench,peers]' || { \
	  $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]' && \
	  for peer in ppocrv6 ppocrv4 openvino; do \
	    $(BIN)/pip install --quiet --disable-pip-version-check --editable ".[$$peer]" || echo "left out: $$peer"; \
	  done; }
	@touch $@
