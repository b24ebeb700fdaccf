"""Engines of TensorRT-RTX, built by the real library on this CPU for GPUs that are not here."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from convert.build_engine import main
from robustscanner.engine import file_sha256, read_manifest
from tests.convert.conftest import ROOT, TINY

rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

TARGETS = {"edge": "sm_80,sm_86,sm_89,sm_120", "r31": "sm_80,sm_120"}
MODELS = ROOT / "runtime" / "robustscanner" / "models"
EDGE, SMALL = MODELS / "edge.onnx", MODELS / "small.onnx"


@pytest.fixture(scope="session")
def r31(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's model with random weights, which a compiler does not mind."""
    pytest.importorskip("torch")
    from convert.graph.export import export
    from robustscanner.spec import ModelSpec
    from training.checkpoint import save_checkpoint
    from training.model.robustscanner import RobustScanner

    folder = tmp_path_factory.mktemp("r31")
    save_checkpoint(folder / "r31.safetensors", RobustScanner(ModelSpec("r31")).eval(), [])
    export(folder / "r31.safetensors", folder / "r31.onnx", fold_values=False, force=False)
    return folder / "r31.onnx"


def build(model: Path, precision: str, folder: Path, crops: Path, *more: str) -> tuple[Path, list[dict[str, Any]]]:
    """Builds an engine for every target; returns it and the layers that the builder listed."""
    target, layers = folder / "x.engine", folder / "layers.json"
    arguments = [str(model), f"--{precision}", "-o", str(target), "--backend", "tensorrt-rtx", "--calib-images", "2"]
    assert main([*arguments, "--calib-data", str(crops), "--save-layers", str(layers), *more]) == 0
    return target, json.loads(layers.read_text())["layers"]


def convolutions(layers: list[dict[str, Any]]) -> dict[str, str]:
    """Precision of each ONNX convolution that a compiled convolution computes."""
    proper = [layer for layer in layers if layer["kind"] == "correlation"]
    return {node: layer["precision"] for layer in proper for node in layer["nodes"] if node.endswith("/Conv")}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", ["edge", "r31"])
def test_backbone_runs_in_the_precision_that_was_asked_for(
    name: str,
    precision: str,
    tmp_path: Path,
    crops: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = EDGE if name == "edge" else request.getfixturevalue("r31")
    _, layers = build(model, precision, tmp_path, crops, "--target", TARGETS[name], "--max-batch", "4")
    found = convolutions(layers)
    backbone = sorted(node for node in found if node.startswith("/backbone/"))
    first = next(node for node in backbone if "conv1_1" in node or "layers.0.0" in node)
    assert len(backbone) == {"edge": 10, "r31": 30}[name]
    expected = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}[precision]
    assert {found[node] for node in backbone if node != first} == {expected}
    assert found[first] == ("Half" if precision == "int8" else expected)  # it sees pixels
    assert found["/encoder/Conv"] == ("Half" if precision == "int8" else expected)
    assert requantising(capsys.readouterr().out) <= {"edge": 9, "r31": 30}[name] * (precision == "int8")


def requantising(printed: str) -> int:
    """Kernels of the encoder that only turn numbers into 8 bits, as a build tells."""
    print(line := next(line for line in printed.splitlines() if line.strip().startswith("kernels")))
    said = re.search(r"(\d+) of the encoder's only requantise", line)
    return int(said[1]) if said else 0


@pytest.mark.parametrize(("precision", "int8"), [("fp16", 0), ("int8", 16)])
def test_layers_of_the_shipped_small(
    precision: str, int8: int, tmp_path: Path, crops: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CTC has a say and canvases differ in width; accuracy is measured in simulation, so its graphs have to run."""
    _, layers = build(SMALL, precision, tmp_path, crops, "--target", "sm_86", "--max-batch", "4")
    found = Counter(convolutions(layers).values())
    assert found["Int8"] == int8
    assert set(found) <= {"Int8", "Half"}
    assert found.total() > 50  # of 70: TensorRT-RTX makes other kernels of some
    assert requantising(capsys.readouterr().out) <= 11 * bool(int8)


def test_turing_gets_scores_without_matrix_products(tmp_path: Path, crops: Path) -> None:
    """TensorRT-RTX has no FP32 products there."""
    target, layers = build(TINY, "fp16", tmp_path, crops, "--target", "sm_75")
    assert read_manifest(target).device["targets"] == "sm_75"
    assert set(convolutions(layers).values()) == {"Half"}


def test_bundle_and_its_manifest(tmp_path: Path, crops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, _ = build(TINY, "int8", tmp_path, crops, "--target", "sm_86,sm_89", "--max-batch", "4")
    plans = ["decoder-1.plan", "decoder.plan", "encoder.plan"]  # the first for just one picture
    assert sorted(path.name for path in target.iterdir()) == [*plans, "engine.json"]
    manifest = read_manifest(target)
    assert (manifest.backend, manifest.precision, manifest.batch.max) == ("tensorrt-rtx", "int8", 4)
    assert manifest.versions["tensorrt-rtx"] == rtx.__version__
    assert manifest.device["targets"] == "sm_86,sm_89"
    assert manifest.files["encoder.plan"] == file_sha256(target / "encoder.plan")
    assert [step["step"] for step in manifest.history] == ["seed", "export", "quantize", "split", "build"]
    assert manifest.accuracy is not None
    assert manifest.accuracy.simulated
    assert manifest.accuracy.fp32_rate == 1  # the labels are what it reads
    printed = capsys.readouterr().out
    assert "convolutions 4 Half, 9 Int8" in printed
    assert "simulated" in printed


def test_dry_run_lists_and_writes_nothing(tmp_path: Path, crops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(TINY), "--int8", "--backend", "tensorrt-rtx", "--dry-run", "--calib-data", str(crops)]
    assert main([*command, "--save-layers", str(tmp_path / "layers.json")]) == 0
    assert "convolutions 4 Half, 9 Int8" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["layers.json"]


def test_row_lstm_as_loops_builds_too(tmp_path: Path, crops: Path) -> None:
    kinds = {
        form: {layer["kind"] for layer in build(TINY, "fp16", tmp_path, crops, "--row-lstm", form, "-f")[1]}
        for form in ("loop", "wavefront")
    }
    assert kinds["loop"] - kinds["wavefront"]  # there is control flow in one of them only


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fp16"], "on a CPU use --fp32 or --int8"),
        (["--fp32", "--row-lstm", "loop"], "--row-lstm: does nothing with ONNX Runtime"),
        (["--int8", "--max-batch", "4"], "--max-batch: does nothing with ONNX Runtime"),
        (["--int8", "--backend", "tensorrt-rtx", "--target", "sm_87"], "builds for sm_75, sm_80"),
        (["--int8", "--backend", "tensorrt-rtx", "--int8-calibrator"], "--int8-calibrator: TensorRT-RTX"),
        (["--int8", "--backend", "tensorrt-rtx", "--version-compatible"], "--version-compatible: TensorRT-RTX"),
        (["--int8", "--backend", "tensorrt-rtx", "--reduce-range"], "--reduce-range: is for x86 CPUs"),
        (["--int8", "--backend", "tensorrt-rtx", "--min-batch", "8", "--max-batch", "4"], "min <= opt <= max"),
        (["--int8", "--backend", "tensorrt"], "tensorrt"),  # not installed, or no GPU
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(TINY), *arguments, "-o", str(tmp_path / "x.engine")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []
