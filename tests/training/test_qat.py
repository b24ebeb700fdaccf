"""Training with rounding computes what the quantised graph will."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from convert.engine.cpu.backend import CpuBackend
from convert.engine.model_source import Source
from convert.engine.trt.backend import TensorRTBackend
from convert.graph.export import build_graph, export, simplify
from convert.graph.model_file import load_model
from convert.int8.calibration import CalibrationSet, Ranges
from convert.int8.placement import place, quantisable
from convert.int8.qdq_onnxruntime import write_qdq
from convert.int8.recipe import AUTO, KEY_LAYERS, Recipe
from robustscanner.errors import EngineError
from tests.training.small import make_batch, make_crops, run, small_config
from training.checkpoint import load_checkpoint, load_ranges, save_checkpoint
from training.model.robustscanner import RobustScanner
from training.qat import Quantisation, Rounding
from training.trainer import Trainer

TINY = Path(__file__).parents[1] / "tiny" / "tiny.safetensors"


def blotches(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (count, 6, 20, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    return torch.from_numpy(images), torch.from_numpy(rng.integers(12, 41, count).astype(np.int32) * 4)


def rounded_model() -> tuple[RobustScanner, Quantisation]:
    model, _ = load_checkpoint(TINY)
    quantisation = Quantisation(model)
    with torch.no_grad():
        model.train().see(blotches(8)[0])
    quantisation.eval()
    return model.eval(), quantisation


def without_rounding(model: RobustScanner) -> RobustScanner:
    plain = RobustScanner(model.spec).eval()
    plain.load_state_dict(model.state_dict())
    return plain


def test_folding_changes_nothing() -> None:
    original, _ = load_checkpoint(TINY)
    with torch.no_grad():  # statistics that are not those of a fresh layer
        original.train().see(blotches(8)[0])
        original.eval()
        expected = original.greedy(*blotches(4))[0]
        Quantisation(original)
        got = without_rounding(original).greedy(*blotches(4))[0]
    assert torch.allclose(expected, got, atol=1e-3)


def test_rounds_as_the_quantised_graph_does() -> None:
    model, quantisation = rounded_model()
    graph = simplify(build_graph(without_rounding(model), fold_values=False))
    placement = place(graph.graph, Recipe(exclude=KEY_LAYERS).choose(quantisable(graph.graph)))
    assert set(placement.tensors) == set(quantisation.ranges())
    quantised = write_qdq(graph, placement, Ranges("qat", 0, quantisation.ranges()))
    images, widths = blotches(8)
    logits, tokens = model.greedy(images, widths)
    got, scores = run_graph(quantised, images, widths)
    apart = float_scores_apart = 0.0
    plain, _ = without_rounding(model).greedy(images, widths)
    for row in range(8):
        length = [*got[row].tolist(), model.spec.charset.end_id].index(model.spec.charset.end_id) + 1
        assert got[row, :length].tolist() == tokens[row, :length].tolist()
        expected = logits.softmax(-1).amax(-1)[row, :length].numpy()
        apart = max(apart, float(np.abs(scores[row, :length] - expected).max()))
        smooth = plain.softmax(-1).amax(-1)[row, :length].numpy()
        float_scores_apart = max(float_scores_apart, float(np.abs(smooth - expected).max()))
    assert apart < 0.02  # of billions of roundings, some fall to the other side
    assert float_scores_apart > 0.1  # the rounding itself is no small thing


def run_graph(graph: onnx.ModelProto, images: torch.Tensor, widths: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    as_written = onnxruntime.SessionOptions()  # kernels for bytes add in 16 bits on x86 without VNNI
    as_written.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), as_written, providers=["CPUExecutionProvider"])
    tokens, scores = session.run(["tokens", "scores"], {"images": images.numpy(), "valid_width": widths.numpy()})
    return tokens, scores


def test_gradients_pass_through_the_rounding() -> None:
    model, _ = rounded_model()
    images, widths = blotches(2)
    model(images, widths, torch.full((2, 3), model.spec.charset.start_id)).sum().backward()
    for name, parameter in model.backbone.named_parameters():
        frozen = not parameter.requires_grad
        assert frozen == (".weight" in name and parameter.ndim == 1), name
        assert frozen or bool(parameter.grad.abs().sum() > 0), name


def test_ranges_follow_training_batches_while_they_are_observed() -> None:
    rounding = Rounding().train()
    rounding(torch.tensor([-1.0, 3.0]))
    assert (rounding.low.item(), rounding.high.item()) == (-1.0, 3.0)
    rounding(torch.tensor([0.5, 5.0]))
    assert (rounding.low.item(), rounding.high.item()) == pytest.approx((-0.95, 3.1))
    rounding.observing = False
    rounding(torch.tensor([-9.0, 9.0]))
    rounding.eval()
    rounding.observing = True
    rounding(torch.tensor([-9.0, 9.0]))
    assert (rounding.low.item(), rounding.high.item()) == pytest.approx((-0.95, 3.1))


def test_values_beyond_the_range_are_clipped_and_zero_is_exact() -> None:
    rounding = Rounding().train()
    rounding(torch.tensor([-1.0, 2.0]))
    rounding.eval()
    assert rounding(torch.tensor([0.0, 7.0, -7.0])).tolist() == pytest.approx([0.0, 2.0, -1.0], abs=1e-6)


def test_a_run_ships_its_ranges_and_resumes_with_them(tmp_path: Path) -> None:
    crops = make_crops(tmp_path)
    config = small_config(qat=True)
    trainer = Trainer(config, tmp_path / "run", crops)
    run(trainer)
    ranges = load_ranges(trainer.folder.best)
    assert ranges
    assert all(low <= 0 < high for low, high in ranges.values())
    again = Trainer(config, tmp_path / "run", crops)
    again.resume()
    assert again.learner.quantisation.ranges() == trainer.learner.quantisation.ranges()
    load_checkpoint(trainer.folder.best)
    batch = make_batch(config, 9)
    assert again.train_step(batch) == trainer.train_step(batch)


def test_engine_takes_the_ranges_that_were_learnt(tmp_path: Path) -> None:
    """Checkpoint, export, both ways of quantising; a model without them says so."""
    model, _ = load_checkpoint(TINY)
    ranges = {name: (-1.0, 1.0 + index) for index, name in enumerate(Quantisation(model).names)}
    save_checkpoint(tmp_path / "qat.safetensors", load_checkpoint(TINY)[0], [], ranges=ranges)
    export(tmp_path / "qat.safetensors", tmp_path / "qat.onnx", fold_values=False, force=False)
    source = Source(tmp_path / "qat.onnx", *load_model(tmp_path / "qat.onnx"))
    nothing = CalibrationSet(tmp_path, (), np.empty((0, 48, 160, 3), np.uint8), np.empty(0, np.int32), ())
    for quantized in (
        CpuBackend.quantise(source, nothing, CpuBackend().settle(Recipe("qat", (AUTO,)), source.spec)),
        TensorRTBackend.quantise(source, nothing, Recipe("qat", KEY_LAYERS)),
    ):
        steps = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.model.graph.initializer}
        used = [name for name in ranges if f"{name}_scale" in steps]
        assert len(used) > 5
        for name in used:
            low, high = ranges[name]
            assert steps[f"{name}_scale"] in (np.float32((high - low) / 255), np.float32(high / 127))
    del source.model.metadata_props[:]
    with pytest.raises(EngineError, match="holds no range of"):
        TensorRTBackend.quantise(source, nothing, Recipe("qat"))
