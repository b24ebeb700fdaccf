"""Building engines: what a bundle holds, and what is left when something goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from convert.build_engine import main
from convert.engine import bundle
from robustscanner.engine import file_sha256, read_manifest
from robustscanner.output import OutputError
from robustscanner.recognizer import Recognizer

from .conftest import CROPS, ROOT, TINY

Edit = Callable[[Callable[[onnx.ModelProto], object]], Path]
PROGRAM = [sys.executable, str(ROOT / "convert" / "build_engine.py")]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "tiny.engine"


@pytest.fixture
def arguments(target: Path, crops: Path) -> list[str]:
    return ["--int8", "-o", str(target), "--calib-data", str(crops)]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which the program refuses."""
    assert main([str(argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_bundle_holds_model_and_manifest(arguments: list[str], target: Path, crops: Path) -> None:
    assert main([str(TINY), *arguments]) == 0
    assert left_behind(target) == ["engine.json", "model.onnx"]
    assert left_behind(target.parent) == ["tiny.engine"]
    manifest = read_manifest(target)
    assert (manifest.model.name, manifest.precision, manifest.backend) == ("tiny", "int8", "onnxruntime")
    assert manifest.files == {"model.onnx": file_sha256(target / "model.onnx")}
    assert {"onnxruntime", "onnx", "opencv", "numpy"} < set(manifest.versions)
    assert manifest.device["name"]
    assert [step["step"] for step in manifest.history] == ["seed", "export", "quantize", "build"]
    assert manifest.history[-1]["input_sha256"] == file_sha256(TINY)
    assert manifest.history[-2]["labels_sha256"] == file_sha256(crops / "labels.tsv")
    assert os.stat(target).st_mode & 0o777 == os.stat(target.parent).st_mode & 0o777


def test_accuracy_is_that_of_the_engine_against_its_source(arguments: list[str], target: Path, crops: Path) -> None:
    assert main([str(TINY), *arguments]) == 0
    accuracy = read_manifest(target).accuracy
    assert accuracy is not None
    assert accuracy.fp32_rate == 1  # the labels are what it reads
    paths = sorted(crops.glob("*.png"))
    with Recognizer(TINY) as source, Recognizer(target) as engine:
        pairs = zip(source.read_batch(paths), engine.read_batch(paths), strict=True)
        assert accuracy.agreement == sum(a.text == b.text for a, b in pairs) / CROPS


def test_summary_says_what_was_done(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TINY), *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"10 of 13 convolutions, ranges by max from {CROPS} crops" in captured.out
    assert "read alike" in captured.out
    assert "recognize.py --engine" in captured.out


def test_fp32_engine_is_the_model_as_it_was(target: Path, crops: Path) -> None:
    assert main([str(TINY), "--fp32", "-o", str(target), "--calib-data", str(crops)]) == 0
    manifest = read_manifest(target)
    assert (target / "model.onnx").read_bytes() == TINY.read_bytes()
    assert manifest.precision == "fp32"
    assert manifest.accuracy is not None
    assert manifest.accuracy.agreement == 1


def test_checkpoint_is_exported_first(arguments: list[str], target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert main([str(TINY.with_suffix(".safetensors")), *arguments]) == 0
    assert left_behind(target) == ["engine.json", "model.onnx"]
    assert "0.2 MB, scores" not in capsys.readouterr().out


def test_checkpoint_without_torch_says_what_is_missing(
    arguments: list[str], target: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name for name in sys.modules if name.split(".")[0] in ("torch", "training") or name == "convert.graph.export"
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "needs torch, which is not installed" in refusal(capsys, TINY.with_suffix(".safetensors"), *arguments)
    assert left_behind(target.parent) == []


def test_existing_engine_is_kept(arguments: list[str], target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TINY), *arguments]) == 0
    before = (target / "engine.json").stat().st_ino
    assert "replace it with --force" in refusal(capsys, TINY, *arguments)
    assert (target / "engine.json").stat().st_ino == before
    assert main([str(TINY), *arguments, "--force"]) == 0
    assert (target / "engine.json").stat().st_ino != before
    assert left_behind(target.parent) == ["tiny.engine"]


def test_force_replaces_nothing_but_engines(
    arguments: list[str], target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target.mkdir(parents=True)
    (target / "thesis.txt").write_text("precious")
    assert "is no engine" in refusal(capsys, TINY, *arguments, "--force")
    assert left_behind(target) == ["thesis.txt"]


@pytest.mark.parametrize(
    "stage",
    [
        "convert.engine.cpu.backend.CpuBackend.make",
        "convert.engine.accuracy.measure.measure",
        "convert.engine.bundle.write_manifest",
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_interrupted_build_leaves_nothing(
    arguments: list[str], target: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(stage, fail)
    with suppress(SystemExit):
        assert main([str(TINY), *arguments]) in (1, 130)
    assert left_behind(target.parent) == []


def test_failed_replacement_leaves_the_old_engine(
    arguments: list[str], target: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([str(TINY), *arguments]) == 0
    before = (target / "engine.json").read_bytes()
    rename, calls = os.rename, []

    def fail_second(source: Path, destination: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        rename(source, destination)

    monkeypatch.setattr(bundle.os, "rename", fail_second)
    assert "No space left" in refusal(capsys, TINY, *arguments, "--force")
    assert (target / "engine.json").read_bytes() == before
    assert left_behind(target.parent) == ["tiny.engine"]


def test_sigterm_leaves_nothing(arguments: list[str], target: Path) -> None:
    process = subprocess.Popen([*PROGRAM, str(TINY), *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not left_behind(target.parent) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (143, "terminated; nothing was written\n")
    assert left_behind(target.parent) == []


def test_refuses_unwritable_places(tmp_path: Path, crops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")  # root may write anywhere, but not below a file
    target = tmp_path / "file" / "tiny.engine"
    assert "cannot be written" in refusal(capsys, TINY, "--int8", "-o", target, "--calib-data", crops)


@pytest.mark.parametrize("name", ["tiny", "tiny.onnx", ".engine"])
def test_refuses_other_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"NAME\.engine"):
        bundle.check_bundle(tmp_path / name, force=True)


def test_needs_a_precision(target: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(TINY), "-o", str(target)])
    assert caught.value.code == 2


def test_needs_a_target() -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(TINY), "--int8"])
    assert caught.value.code == 2


def test_refuses_what_is_no_model(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    assert "not an ONNX file" in refusal(capsys, tmp_path / "text.onnx", *arguments)
    assert "No such file" in refusal(capsys, tmp_path / "missing.onnx", *arguments)
    assert "safetensors" in refusal(capsys, tmp_path / "missing.safetensors", *arguments)


def test_refuses_broken_weights(arguments: list[str], edited: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "classifier")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * float("inf"), tensor.name))

    assert "classifier holds NaN or infinity" in refusal(capsys, edited(spoil), *arguments)


@pytest.mark.parametrize(("opset", "message"), [(11, "opset 11"), (99, "opset 99")])
def test_refuses_other_opsets(
    arguments: list[str], edited: Edit, capsys: pytest.CaptureFixture[str], opset: int, message: str
) -> None:
    path = edited(lambda model: setattr(model.opset_import[0], "version", opset))
    assert message in refusal(capsys, path, *arguments)


def test_refuses_a_spec_that_does_not_fit_the_graph(
    arguments: list[str], edited: Edit, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lengthen(model: onnx.ModelProto) -> None:
        entry = next(entry for entry in model.metadata_props if entry.key == "robustscanner.spec")
        spec = json.loads(entry.value)
        spec["network"]["max_length"] = 13
        entry.value = json.dumps(spec)

    assert "its spec needs" in refusal(capsys, edited(lengthen), *arguments)
    assert left_behind(target.parent) == []


def test_refuses_an_empty_calibration_folder(tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no labels.tsv" in refusal(capsys, TINY, "--int8", "-o", target, "--calib-data", tmp_path)
    assert left_behind(target.parent) == []


def test_warns_of_unreadable_crops(
    tmp_path: Path, target: Path, crops: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.tsv").write_text("gone.png\tword\n00.png\tword\n")
    (tmp_path / "00.png").write_bytes((crops / "00.png").read_bytes())
    assert main([str(TINY), "--int8", "-o", str(target), "--calib-data", str(tmp_path)]) == 0
    assert capsys.readouterr().err.startswith("warning: 1 unreadable pictures left out; the first: ")


@pytest.mark.parametrize("program", [[PROGRAM[1]], ["-m", "convert.build_engine"]])
def test_runs_by_path_and_as_a_module(program: list[str]) -> None:
    done = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "--calib-data" in done.stdout
