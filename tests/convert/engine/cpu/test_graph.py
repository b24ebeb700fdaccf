"""The graph for the CPU gives what the exported one gives, and the same files go in and out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.utils import Extractor

from convert.engine.cpu.graph import for_cpu
from convert.graph.model_file import load_model
from convert.graph.step import MEMORY
from convert.int8.calibration import collect_ranges, load_calibration
from convert.int8.placement import quantisable
from convert.int8.qdq_onnxruntime import quantise_convolutions
from convert.int8.recipe import Recipe
from robustscanner.errors import EngineError
from robustscanner.spec import InputSpec, ModelSpec
from tests.convert.conftest import TINY

FULL_PX = 160

Inputs = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_model(TINY)[1]


@pytest.fixture(scope="module")
def rewritten(spec: ModelSpec) -> onnx.ModelProto:
    return for_cpu(onnx.load(TINY), spec)


def run(model: onnx.ModelProto, names: list[str], inputs: Inputs) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(names, inputs))


def words(widths: list[int]) -> Inputs:
    """Blotches, black to the right of the word."""
    rng = np.random.default_rng(len(widths))
    images = rng.integers(0, 256, (len(widths), 6, 20, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    for image, width in zip(images, widths, strict=True):
        image[:, width:] = 0
    return {"images": images, "valid_width": np.array(widths, np.int32)}


@pytest.mark.parametrize("widths", [[FULL_PX], [48, FULL_PX, 101]])
def test_equals_the_export_on_whole_canvases(
    tiny: onnx.ModelProto, rewritten: onnx.ModelProto, widths: list[int]
) -> None:
    inputs = words(widths)
    expected, got = (run(model, ["tokens", "scores"], inputs) for model in (tiny, rewritten))
    assert len({tuple(row) for row in expected[0]}) == len(widths)
    assert [array.dtype for array in got] == [array.dtype for array in expected]
    assert np.array_equal(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], atol=1e-5)


def test_tensors_between_encoder_and_decoder_keep_their_names(
    tiny: onnx.ModelProto, rewritten: onnx.ModelProto
) -> None:
    inputs = words([FULL_PX, 90])
    parts = [Extractor(model).extract_model(list(inputs), list(MEMORY)) for model in (tiny, rewritten)]
    expected, got = (run(part, list(MEMORY), inputs) for part in parts)
    for before, after in zip(expected, got, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-4)


@pytest.mark.parametrize(("width", "columns"), [(48, 16), (49, 17), (144, 40), (FULL_PX, 40), (0, 4)])
def test_computes_no_column_that_is_far_from_the_word(rewritten: onnx.ModelProto, width: int, columns: int) -> None:
    """A column is 4 pixels; 16 pixels of margin are kept, however little there is to read."""
    part = Extractor(rewritten).extract_model(["images", "valid_width"], ["mask"])
    (mask,) = run(part, ["mask"], words([width]))
    assert mask.shape == (1, 1, 3 * columns)
    assert (mask[0, 0, :columns] == 0).sum() == min(columns, (width + 2) // 4)


def test_a_model_that_may_know_whole_canvases_only_gets_them(tiny: onnx.ModelProto, spec: ModelSpec) -> None:
    """The graph is still `edge`'s: what counts is whose weights the spec says they are."""
    other = replace(spec, network=replace(spec.network, backbone="r31", widths=()))
    whole = for_cpu(tiny, other)
    inputs = words([48])
    assert not any("images" in node.input for node in whole.graph.node if node.op_type == "Slice")
    expected, got = (run(model, ["tokens", "scores"], inputs) for model in (tiny, whole))
    assert np.array_equal(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], atol=1e-5)


def test_behind_the_end_are_pad_and_certainty(tiny: onnx.ModelProto, spec: ModelSpec) -> None:
    """One word ends at once, so that the loop does: all that follows is padding up to T."""
    bias = next(tensor for tensor in tiny.graph.initializer if tensor.name == "classifier_bias")
    values = numpy_helper.to_array(bias).copy()
    values[spec.charset.end_id] += 1e4
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    tokens, scores = run(for_cpu(tiny, spec), ["tokens", "scores"], words([100, 60]))
    steps = spec.network.max_length
    assert tokens.tolist() == [[spec.charset.end_id, *[spec.charset.pad_id] * (steps - 1)]] * 2
    assert (scores == 1).all()


def test_layers_keep_their_names(tiny: onnx.ModelProto, rewritten: onnx.ModelProto) -> None:
    trained = {node.name for node in tiny.graph.node if node.op_type in ("Conv", "LSTM")}
    assert trained < {node.name for node in rewritten.graph.node}


def test_can_be_quantised(rewritten: onnx.ModelProto, crops: Path) -> None:
    calibration = load_calibration(crops, InputSpec())
    layers = [name for name in quantisable(rewritten.graph) if name.startswith("/backbone")]
    assert len(layers) == 9
    quantised, _ = quantise_convolutions(rewritten, layers, Recipe(), calibration, collect_ranges)
    tokens, _ = run(quantised, ["tokens", "scores"], words([100, 60]))
    assert tokens.shape == (2, 12)


def test_the_model_itself_is_as_it_was(tiny: onnx.ModelProto, spec: ModelSpec) -> None:
    before = tiny.SerializeToString()
    for_cpu(tiny, spec)
    assert tiny.SerializeToString() == before


def test_another_graph_is_refused(tiny: onnx.ModelProto, spec: ModelSpec) -> None:
    softmax = next(node for node in tiny.graph.node if node.op_type == "Softmax")
    softmax.op_type = "LogSoftmax"
    with pytest.raises(EngineError, match="no Softmax where one is expected; export the model again"):
        for_cpu(tiny, spec)
    for node in tiny.graph.node:
        node.output[:] = ["elsewhere" if name == "position" else name for name in node.output]
    with pytest.raises(EngineError, match="no tensor 'position'"):
        for_cpu(tiny, spec)
