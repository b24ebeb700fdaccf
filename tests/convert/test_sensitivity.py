"""Layers tried one by one; ranges chosen by squared error."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from convert.engine.accuracy.trial import Trials, with_logits
from convert.engine.cpu.backend import CpuBackend
from convert.engine.model_source import load_source
from convert.engine.trt.backend import TensorRTBackend
from convert.int8.calibration import Histogram, load_calibration
from convert.sensitivity import main
from robustscanner.errors import EngineError
from robustscanner.spec import InputSpec

from .conftest import CROPS, TINY


@pytest.fixture(scope="module")
def trials(crops: Path) -> Trials:
    calibration = load_calibration(crops, InputSpec())
    return Trials(CpuBackend.quantise, load_source(TINY), calibration, calibration)


def test_logits_are_those_the_tokens_come_from(tiny: onnx.ModelProto, crops: Path) -> None:
    calibration = load_calibration(crops, InputSpec())
    session = onnxruntime.InferenceSession(with_logits(tiny).SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {"images": calibration.canvases, "valid_width": calibration.widths}
    tokens, logits = session.run(["tokens", "step_logits"], inputs)
    first = logits.argmax(-1)[0]  # of the first step
    assert (first == tokens[:, 0]).all()
    assert logits.shape[1] == CROPS


def test_graphs_without_a_loop_are_refused() -> None:
    with pytest.raises(EngineError, match="no decoding loop"):
        with_logits(onnx.ModelProto())


def test_float_layers_change_nothing(trials: Trials) -> None:
    assert trials.base == trials.run(trials.layers)
    assert (trials.base.rate, trials.base.agreement, trials.base.divergence) == (1, 1, 0)


def test_eight_bits_diverge_and_sparing_layers_helps(trials: Trials) -> None:
    everything = trials.run(())
    backbone = trials.run([layer for layer in trials.layers if not layer.startswith("/backbone")])
    assert 0 < backbone.divergence < everything.divergence
    assert everything.agreement <= backbone.agreement


def test_thinned_crops_share_ranges(trials: Trials, crops: Path) -> None:
    calibration = load_calibration(crops, InputSpec())
    few = trials.on(calibration.thinned(5))
    assert few.words == 5
    assert few.run(()).divergence > 0
    assert few.layers == trials.layers


def test_tensorrt_rounds_elsewhere(crops: Path, trials: Trials) -> None:
    calibration = load_calibration(crops, InputSpec())
    theirs = Trials(TensorRTBackend.quantise, load_source(TINY), calibration, calibration).run(())
    assert theirs.divergence > 0
    assert theirs.divergence != trials.run(()).divergence


def test_squared_error_clips_a_stray_value() -> None:
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(size=100_000), 60).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    low, high = histogram.limits("mse")
    assert low == values.min()

    def error(limit: float) -> float:
        step = limit / 128  # a level for each sign's half
        return float(np.square(np.clip(np.rint(values / step) * step, -limit, limit) - values).mean())

    assert error(high) < 0.9 * min(error(60), error(high / 2))


def test_squared_error_keeps_even_values() -> None:
    histogram = Histogram()
    histogram.add(np.linspace(0, 1, 10_000, dtype=np.float32))
    assert histogram.limits("mse") == (0, pytest.approx(1, rel=0.02))


def test_program(crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "layers.json"
    arguments = [str(TINY), "--calib-data", str(crops), "--crops", "4", "--max-drop", "100", "-o", str(output)]
    assert main(arguments) == 0
    result = json.loads(output.read_text())
    damage = [row["alone"]["divergence"] for row in result["layers"]]
    assert damage == sorted(damage, reverse=True)
    assert list(result["methods"]) == ["max", "entropy", "percentile", "mse"]
    assert result["methods"]["max"] == result["all_int8"]
    assert result["least"]["float_layers"] == []
    assert (result["words"], result["model"]) == (4, "tiny")
    assert "ranges by entropy" in capsys.readouterr().out


def test_says_so_where_no_word_is_read(crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "00.png").write_bytes((crops / "00.png").read_bytes())
    (tmp_path / "labels.tsv").write_text("00.png\tnot what it reads\n")
    assert main([str(TINY), "--calib-data", str(tmp_path), "--crops", "1"]) == 0
    assert "FP32 reads no word right" in capsys.readouterr().out


def test_plot(crops: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "layers.svg"
    arguments = [str(TINY), "--calib-data", str(crops), "--crops", "2", "--max-drop", "100", "--plot", str(plot)]
    assert main(arguments) == 0
    assert "<svg" in plot.read_text(encoding="utf-8")
