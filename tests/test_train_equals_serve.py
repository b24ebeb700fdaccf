"""The shipped model reads the same in PyTorch, in ONNX Runtime and as an engine; the README's commands work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustscanner.engine import default_engine, read_manifest
from robustscanner.labels import read_labels
from robustscanner.metrics import score_words
from robustscanner.recognizer import Recognizer
from training.checkpoint import load_checkpoint
from training.evaluation.network_reader import read_crops

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "runtime" / "robustscanner" / "models"
CROPS = [crop.path for crop in read_labels(ROOT / "calib_data")[:200]]


def run(*command: str | Path) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "error::DeprecationWarning"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(engine: Path) -> list[str]:
    with Recognizer(engine) as recognizer:
        return [reading.text for reading in recognizer.read_batch(CROPS)]


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "e.engine"
    run("convert/build_engine.py", "--int8", "-o", path)
    return path


@pytest.mark.parametrize("name", ["small", "edge"])
def test_pytorch_and_onnx_runtime_read_alike(name: str) -> None:
    model, _ = load_checkpoint(MODELS / f"{name}.safetensors")
    assert read_crops(model, CROPS) == read(MODELS / f"{name}.onnx")


def test_fp32_engine_reads_as_its_source(tmp_path: Path) -> None:
    run("convert/build_engine.py", "--fp32", "-o", tmp_path / "e.engine", "--calib-images", "8")
    assert read(tmp_path / "e.engine") == read(default_engine())


def test_int8_engine_knows_how_much_it_reads_alike(int8: Path) -> None:
    accuracy = read_manifest(int8).accuracy
    assert accuracy is not None
    assert accuracy.engine_rate > accuracy.fp32_rate - 0.02
    alike = sum(a == b for a, b in zip(read(int8), read(default_engine()), strict=True)) / len(CROPS)
    assert alike > 0.9


def test_reads_the_demo(int8: Path) -> None:
    demo = ROOT / "calib_data" / "demo"
    lines = run("runtime/recognize.py", "--engine", int8, demo).splitlines()
    readings = [line.split("\t")[1] for line in lines]
    assert score_words(readings, [crop.label for crop in read_labels(demo)]).correct >= 9


@pytest.mark.parametrize("model", ["small.safetensors", "small.onnx"])
def test_evaluate_takes_any_model(model: str) -> None:
    table = json.loads(run("training/evaluate.py", MODELS / model, "calib_data/demo", "--json"))
    assert table["sets"]["calib_data/demo"]["words"] == 12


def test_shipped_models_are_small() -> None:
    """Of the wheel; checkpoints stay in the checkout, where training is."""
    assert sum(path.stat().st_size for path in MODELS.glob("*.onnx")) < 30e6


def test_calibration_crops_are_the_ones_in_the_manifest() -> None:
    from robustscanner.engine import file_sha256

    rows = (ROOT / "calib_data" / "manifest.tsv").read_text().splitlines()
    assert len(rows) == len(read_labels(ROOT / "calib_data"))
    for path, digest in (row.split("\t") for row in rows):
        assert file_sha256(ROOT / "calib_data" / path) == digest
