"""The decode kernel's files: compiled where nvcc is, weights in the precision of the encoder."""

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from convert.build_engine import main
from convert.engine.trt import kernel_files
from convert.engine.trt.half import to_half
from convert.engine.trt.kernel_files import check_kernels, write_kernels
from convert.graph.model_file import load_model
from convert.graph.split import split
from robustscanner.engine import KERNELS_NAME, ROWS_NAME, WEIGHTS_NAME, read_manifest
from robustscanner.errors import EngineError
from robustscanner.gpu.kernels import row_layout, weight_layout
from robustscanner.spec import ModelSpec
from tests.convert.conftest import ROOT, TINY

EDGE = ROOT / "tests" / "models" / "edge-lstm.onnx"  # the row LSTM's kernel needs a model that has one
SHIPPED = ROOT / "runtime" / "robustscanner" / "models" / "edge.onnx"
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not here")


@pytest.fixture(scope="module")
def edge() -> tuple[onnx.ModelProto, ModelSpec]:
    return load_model(EDGE)[:2]


@needs_nvcc
def test_both_files(edge: tuple[onnx.ModelProto, ModelSpec], tmp_path: Path) -> None:
    model, spec = edge
    encoder = to_half(split(model, spec)[0], ("values", "position"))
    step = write_kernels(tmp_path, model, encoder, spec, ["sm_87"])
    assert (step["targets"], step["precision"]) == ("sm_87", "fp16")
    assert b"robustscanner_decode_half" in (tmp_path / KERNELS_NAME).read_bytes()
    graph = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layout, size_bytes = weight_layout(spec, len(graph["classifier"]), half=True)
    packed = np.fromfile(tmp_path / WEIGHTS_NAME, np.uint8)
    assert packed.nbytes == size_bytes
    weight = layout["classifier"]
    stored = packed[weight.offset :][: 2 * graph["classifier"].size].view(np.float16).reshape(weight.shape)
    np.testing.assert_array_equal(stored, graph["classifier"].astype(np.float16))


@needs_nvcc
def test_what_nvcc_refuses_is_told_in_one_line(edge: tuple[onnx.ModelProto, ModelSpec], tmp_path: Path) -> None:
    model, spec = edge
    with pytest.raises(
        EngineError, match=r"nvcc cannot compile the decode kernel for sm_11: .*; build without"
    ) as raised:
        write_kernels(tmp_path, model, split(model, spec)[0], spec, ["sm_11"])
    assert "\n" not in str(raised.value)


def test_without_nvcc(edge: tuple[onnx.ModelProto, ModelSpec], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kernel_files, "_CUDA", tmp_path / "nvcc")
    with pytest.raises(EngineError, match="nvcc, which is not on PATH; install the CUDA toolkit, or build without"):
        check_kernels(edge[1])


def test_another_hidden_size_is_refused_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    target = tmp_path / "x.engine"
    arguments = ["--fp16", "-o", str(target), "--backend", "tensorrt-rtx", "--target", "sm_86", "--decoder", "kernel"]
    assert main([str(TINY), *arguments]) == 1
    assert "the decode kernel is for hidden size 128, not 16" in capsys.readouterr().err
    assert not target.exists()


@needs_nvcc
def test_an_engine_with_both_kernels(tmp_path: Path, crops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole encoder is in it as well, for GPUs that cannot run them."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    arguments = ["--fp16", "-o", str(tmp_path / "x.engine"), "--backend", "tensorrt-rtx", "--target", "sm_86"]
    arguments += ["--decoder", "kernel", "--row-lstm", "kernel", "--calib-data", str(crops), "--max-batch", "4"]
    assert main([str(EDGE), *arguments]) == 0
    plans = {"encoder.plan", "decoder.plan", "decoder-1.plan", "front.plan", "back.plan"}
    assert set(read_manifest(tmp_path / "x.engine").files) == plans | {KERNELS_NAME, WEIGHTS_NAME, ROWS_NAME}
    assert (tmp_path / "x.engine" / ROWS_NAME).stat().st_size == row_layout(half=True)[1]
    line = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("kernels"))
    whole, around = (
        int(number) for number in re.findall(r"encoder (\d+)|(\d+) around", line) for number in number if number
    )
    assert around < whole / 2


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (EDGE, ["--row-lstm", "kernel"], "give --decoder kernel as well"),
        (SHIPPED, ["--row-lstm", "kernel", "--decoder", "kernel"], "has no LSTM over its rows"),
    ],
)
def test_row_kernel_that_cannot_be(
    model: Path, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    common = ["--fp16", "-o", str(tmp_path / "x.engine"), "--backend", "tensorrt-rtx", "--target", "sm_86"]
    assert main([str(model), *common, *arguments]) == 1
    assert message in capsys.readouterr().err


def test_decoder_does_nothing_with_onnxruntime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--fp32", "-o", str(tmp_path / "x.engine"), "--backend", "onnxruntime", "--decoder", "kernel"]
    assert main([str(TINY), *arguments]) == 1
    assert "--decoder: does nothing with ONNX Runtime" in capsys.readouterr().err
