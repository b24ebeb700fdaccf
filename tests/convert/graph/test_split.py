"""The two graphs read what the one graph reads, and the step says when to stop."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from convert.engine.trt.half import to_half
from convert.engine.trt.simulate import decode, everything_allowed, first_state, read_simulated
from convert.graph.model_file import load_model
from convert.graph.split import split
from convert.graph.step import ALLOWED, MEMORY, STATE
from convert.int8.calibration import CalibrationSet, load_calibration
from robustscanner import Constraint
from robustscanner.charset import Charset
from robustscanner.errors import EngineError
from robustscanner.spec import ModelSpec
from tests.convert.conftest import TINY

Pair = tuple[onnx.ModelProto, onnx.ModelProto]


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_model(TINY)[1]


@pytest.fixture(scope="module")
def graphs(spec: ModelSpec) -> Pair:
    return split(onnx.load(TINY), spec)


@pytest.fixture(scope="module")
def calibration(crops: Path, spec: ModelSpec) -> CalibrationSet:
    return load_calibration(crops, spec.input, images=8)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_both_are_valid_and_say_their_shapes(graphs: Pair, spec: ModelSpec) -> None:
    encoder, decoder = graphs
    for graph in graphs:
        onnx.checker.check_model(graph, full_check=True)
    assert [value.name for value in encoder.graph.output] == list(MEMORY)
    assert [value.name for value in decoder.graph.input] == [*MEMORY, ALLOWED, *STATE]
    assert [value.name for value in decoder.graph.output] == [*(f"{name}_next" for name in STATE), "going"]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in decoder.graph.input}
    assert shapes[ALLOWED] == [spec.network.max_length, spec.charset.class_count]
    assert shapes["keys"] == [0, spec.network.hidden_size, 120]  # 0: the batch, the only open dimension
    assert all(0 not in shape[1:] for shape in shapes.values())
    assert [v.type.tensor_type.shape.dim[1].dim_value for v in encoder.graph.output][1] == shapes["values"][1]


def test_mask_is_finite_in_half_precision(graphs: Pair, spec: ModelSpec, calibration: CalibrationSet) -> None:
    inputs = {"images": calibration.canvases, "valid_width": np.full_like(calibration.widths, spec.input.min_width_px)}
    (mask,) = session(graphs[0]).run(["mask"], inputs)
    assert mask.min() < -1e4
    assert np.isfinite(mask.astype(np.float16)).all()


def test_encoder_and_steps_equal_the_one_graph(graphs: Pair, spec: ModelSpec, calibration: CalibrationSet) -> None:
    inputs = {"images": calibration.canvases, "valid_width": calibration.widths}
    tokens, scores = session(onnx.load(TINY)).run(["tokens", "scores"], inputs)
    memory = dict(zip(MEMORY, session(graphs[0]).run(list(MEMORY), inputs), strict=True))
    memory[ALLOWED], step = everything_allowed(spec), session(graphs[1])
    got, sure = decode(step, memory, first_state(step, memory, spec))
    assert len({tuple(row) for row in tokens}) > 4  # not all the same text
    np.testing.assert_array_equal(got, tokens)
    np.testing.assert_allclose(sure, scores, atol=2e-5)
    assert read_simulated(*graphs, spec, calibration) == [
        Charset(spec.charset).decode(*row)[0] for row in zip(tokens, scores, strict=True)
    ]


CONSTRAINTS = (Constraint("0-9"), Constraint(pattern=r"[A-Z]{2}\d{2}[A-Z]{3}"), Constraint("a-z", length=(2, 5)))


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=str)
@pytest.mark.parametrize("half", [False, True])
def test_steps_choose_among_what_is_allowed(
    graphs: Pair, spec: ModelSpec, calibration: CalibrationSet, constraint: Constraint, half: bool
) -> None:
    """As the one graph does; also where products are half, which cannot hold numbers as low as those."""
    inputs, mask = (
        {"images": calibration.canvases, "valid_width": calibration.widths},
        constraint.automaton(spec).mask(),
    )
    memory = dict(zip(MEMORY, session(graphs[0]).run(list(MEMORY), inputs), strict=True)) | {ALLOWED: mask}
    step = session(to_half(graphs[1], ()) if half else graphs[1])
    got, sure = decode(step, memory, first_state(step, memory, spec))
    tokens, scores = session(onnx.load(TINY)).run(["tokens", "scores"], inputs | {ALLOWED: mask})
    assert all(
        mask[place, token] == 0 for row in got for place, token in enumerate(row) if token != spec.charset.pad_id
    )
    if not half:
        np.testing.assert_array_equal(got, tokens)
        np.testing.assert_allclose(sure, scores, atol=2e-5)
    assert sure.prod(1).max() < 0.5  # it was forced


def test_numbers_that_are_none_choose_an_id(graphs: Pair, spec: ModelSpec, calibration: CalibrationSet) -> None:
    inputs = {"images": calibration.canvases, "valid_width": calibration.widths}
    memory = dict(zip(MEMORY, session(graphs[0]).run(list(MEMORY), inputs), strict=True))
    memory = {name: np.full_like(array, np.nan) for name, array in memory.items()} | {ALLOWED: everything_allowed(spec)}
    step = session(graphs[1])
    token, scores = step.run(["token_next", "scores_next"], {**memory, **first_state(step, memory, spec)})
    assert (token < spec.charset.class_count).all()
    assert np.isnan(scores[:, 0]).all()


def test_step_stops_when_the_last_row_has_ended(graphs: Pair, spec: ModelSpec, calibration: CalibrationSet) -> None:
    inputs = {"images": calibration.canvases, "valid_width": calibration.widths}
    memory = dict(zip(MEMORY, session(graphs[0]).run(list(MEMORY), inputs), strict=True))
    memory[ALLOWED], step = everything_allowed(spec), session(graphs[1])
    state = first_state(step, memory, spec)
    names = [f"{name}_next" for name in STATE]
    for count in range(1, spec.network.max_length + 1):
        *values, going = step.run([*names, "going"], {**memory, **state})
        state = dict(zip(STATE, values, strict=True))
        ended = (state["tokens"][:, :count] == spec.charset.end_id).any(1)
        assert state["step"] == count
        np.testing.assert_array_equal(state["running"], ~ended)
        assert bool(going[0]) == (not ended.all())
        assert (state["tokens"][:, count:] == spec.charset.pad_id).all()


def test_values_are_folded_once(graphs: Pair, spec: ModelSpec, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from convert.graph.export import export

    export(TINY.with_suffix(".safetensors"), tmp_path / "folded.onnx", fold_values=True, force=False)
    encoder, _ = split(onnx.load(tmp_path / "folded.onnx"), spec)
    images = np.random.default_rng(1).integers(0, 256, (1, 48, 160, 3), np.uint8)
    inputs = {"images": images, "valid_width": np.array([120], np.int32)}
    folded, ours = (session(graph).run(["values"], inputs)[0] for graph in (encoder, graphs[0]))
    np.testing.assert_allclose(folded, ours, atol=1e-4)


@pytest.mark.parametrize(("name", "said"), [("keys", "no tensor 'keys'"), ("classifier", "no weights 'classifier'")])
def test_a_graph_of_another_making_is_refused(tiny: onnx.ModelProto, spec: ModelSpec, name: str, said: str) -> None:
    for node in tiny.graph.node:
        node.output[:] = [f"other_{n}" if n == name else n for n in node.output]
    for tensor in tiny.graph.initializer:
        tensor.name = f"other_{name}" if tensor.name == name else tensor.name
    with pytest.raises(EngineError, match=said):
        split(tiny, spec)
