"""Opening engines: bundles, bare ONNX files, and everything that is wrong with them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
from fake_model import ROOT, SPEC, FakeOptions, write_fake_model

from robustscanner.engine import (
    BatchRange,
    EngineAccuracy,
    EngineManifest,
    default_engine,
    file_sha256,
    open_engine,
    read_manifest,
)
from robustscanner.errors import EngineError
from robustscanner.session import SessionOptions

OPTIONS = SessionOptions(threads=1)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "word.engine"
    folder.mkdir()
    model = write_fake_model(folder / "model.onnx")
    manifest = EngineManifest(
        model=SPEC,
        precision="int8",
        batch=BatchRange(1, 8, 32),
        backend="onnxruntime",
        versions={"onnxruntime": onnxruntime.__version__},
        device={"name": "a CPU"},
        accuracy=EngineAccuracy(words=100, fp32_rate=0.9, engine_rate=0.89, agreement=0.99),
        history=(
            {
                "step": "build",
                "tool": "build_engine.py",
                "version": "0.1.0",
                "input": "x.onnx",
                "input_sha256": "0" * 64,
            },
        ),
        files={"model.onnx": file_sha256(model)},
    )
    (folder / "engine.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


def change(bundle: Path, key: str, value: Any) -> None:
    """Edits engine.json; None removes the key."""
    path = bundle / "engine.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data[key] = value
    if value is None:
        del data[key]
    path.write_text(json.dumps(data), encoding="utf-8")


def refusal(path: Path) -> str:
    """The one line with which an engine is refused."""
    with pytest.raises(EngineError) as caught:
        open_engine(path, OPTIONS)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert len(line) < 500
    return line


def test_bundle_opens(bundle: Path) -> None:
    session = open_engine(bundle, OPTIONS)
    tokens, scores = session.run(np.zeros((2, 48, 160, 3), np.uint8), np.array([160, 48], np.int32))
    assert session.spec == SPEC
    assert session.max_batch is None
    assert tokens.shape == scores.shape == (2, SPEC.network.max_length)
    session.close()
    with pytest.raises(EngineError, match="already closed"):
        session.run(np.zeros((1, 48, 160, 3), np.uint8), np.array([160], np.int32))


def test_manifest_round_trip(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert EngineManifest.from_json(manifest.to_json()) == manifest
    assert next(iter(json.loads(manifest.to_json()))) == "format"


def test_accuracy_may_be_unknown(bundle: Path) -> None:
    path = bundle / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": None}))
    assert read_manifest(bundle).accuracy is None


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format", 7, "format 7, but this version reads 1; update the kit"),
        ("format", None, "format null"),
        ("backend", None, 'missing ["backend"]'),
        ("colour", "BGR", 'unknown ["colour"]'),
        ("backend", "openvino", 'unknown backend "openvino"; known are onnxruntime, tensorrt'),
        ("precision", "int4", 'unknown precision "int4"'),
        ("batch", {"min": 4, "opt": 2, "max": 8}, "needs 1 <= min <= opt <= max, not 4, 2, 8"),
        ("batch", {"min": 1, "opt": 2}, 'batch: missing ["max"]'),
        ("batch", {"min": 1, "opt": 1.5, "max": 8}, "opt is 1.5, not a number that fits"),
        ("batch", [1, 2, 3], "batch: not a JSON object"),
        ("accuracy", {"words": 1}, "accuracy: missing"),
        ("versions", {"onnxruntime": 1.2}, "versions: not a JSON object of texts"),
        ("history", {}, "history: not a list"),
        ("model", {}, "model: spec: format null"),
        ("files", {}, "lists no model.onnx"),
        ("files", {"model.onnx": "0" * 64}, "damaged or replaced"),
        ("files", {"model.onnx": "0"}, "no SHA-256"),
        ("files", {"model.onnx": "0" * 64, "gone.plan": "0" * 64}, "damaged or replaced"),
        ("files", {"gone.plan": "0" * 64}, "gone.plan: missing"),
        ("files", {"../word.onnx": "0" * 64}, "leaves the engine's folder"),
        ("files", {"/etc/passwd": "0" * 64}, "leaves the engine's folder"),
        ("files", {"a\\b": "0" * 64}, "leaves the engine's folder"),
        ("files", {"..": "0" * 64}, "leaves the engine's folder"),
    ],
)
def test_manifests_that_are_wrong(bundle: Path, key: str, value: Any, says: str) -> None:
    change(bundle, key, value)
    assert says in refusal(bundle)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100000, b'{"format": 1}'])
def test_manifests_that_are_none(bundle: Path, text: bytes) -> None:
    (bundle / "engine.json").write_bytes(text)
    assert "build it again" in refusal(bundle)


def test_folder_without_manifest(bundle: Path) -> None:
    (bundle / "engine.json").unlink()
    assert "holds no engine.json" in refusal(bundle)


def test_file_missing_or_replaced(bundle: Path) -> None:
    write_fake_model(bundle / "model.onnx", FakeOptions(first_id=1))
    assert "model.onnx: damaged or replaced" in refusal(bundle)
    (bundle / "model.onnx").unlink()
    assert "model.onnx: missing" in refusal(bundle)


def test_manifest_of_another_model(bundle: Path) -> None:
    change(bundle, "model", SPEC.to_dict() | {"name": "other"})
    assert "describe different models" in refusal(bundle)


def test_no_engine_at_all(tmp_path: Path) -> None:
    assert "no such engine" in refusal(tmp_path / "nothing.onnx")
    (tmp_path / "weights.pt").touch()
    assert "neither a NAME.onnx file nor a NAME.engine folder" in refusal(tmp_path / "weights.pt")


def spec_with(**network: Any) -> str:
    data = SPEC.to_dict()
    return json.dumps(data | {"network": data["network"] | network})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (FakeOptions(spec_json=None), "not one of our models: no robustscanner.spec metadata; export it with convert"),
        (FakeOptions(spec_json="{}"), "spec: format null"),
        (
            FakeOptions(spec_json=spec_with(max_length=7)),
            "tokens is tensor(int32) [N, 6], but its spec needs tensor(int32) [N, 7]",
        ),
        (FakeOptions(width_px=128), "images is tensor(uint8) [N, 48, 128, 3], but its spec needs"),
        (FakeOptions(batch=4), "images is tensor(uint8) [4, 48, 160, 3], but its spec needs"),
        (FakeOptions(scores_name="logits"), "inputs and outputs are images, logits, tokens, valid_width"),
        (FakeOptions(opset=99), f"made with opset 99; ONNX Runtime {onnxruntime.__version__} reads up to opset"),
        (FakeOptions(ir_version=99), "made with ONNX IR version 99"),
    ],
)
def test_onnx_files_that_do_not_fit(tmp_path: Path, options: FakeOptions, says: str) -> None:
    assert says in refusal(write_fake_model(tmp_path / "x.onnx", options))


@pytest.mark.parametrize("size", [0, 50, -1, None])
def test_damaged_onnx_file(tmp_path: Path, engine: Path, size: int | None) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"no ONNX file" * 99 if size is None else engine.read_bytes()[:size])
    assert "export it again" in refusal(path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (FakeOptions(score_scale=float("nan")), "scores are not finite"),
        (FakeOptions(first_id=1000), "ids outside its charset"),
        (FakeOptions(first_id=-1000), "ids outside its charset"),
    ],
)
def test_broken_results(tmp_path: Path, options: FakeOptions, says: str) -> None:
    path = write_fake_model(tmp_path / "x.onnx", options)
    session = open_engine(path, OPTIONS)
    with pytest.raises(EngineError, match=f"x.onnx: .*{says}"):
        session.run(np.zeros((1, 48, 160, 3), np.uint8), np.array([160], np.int32))


def test_shipped_model_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("robustscanner.engine.__file__", str(tmp_path / "engine.py"))
    with pytest.raises(EngineError, match="the shipped model is missing"):
        default_engine()


def test_onnxruntime_missing(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "robustscanner.onnx_session", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'robustscanner[cpu]'" in refusal(engine)


def test_threads_must_be_positive() -> None:
    with pytest.raises(EngineError, match="threads is 0; give a number from 1"):
        SessionOptions(threads=0)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("robustscanner", ["numpy", "cv2", "onnxruntime"]),
        ("robustscanner.recognize", ["numpy", "cv2", "onnxruntime"]),
        ("robustscanner.metrics", ["numpy", "cv2", "onnxruntime"]),
        ("robustscanner.recognizer", ["onnxruntime"]),
    ],
)
def test_heavy_libraries_wait(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; assert not set({absent}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "runtime")}, check=True, timeout=60)
