"""The row kernel, between both halves of the encoder, gives what ONNX's LSTM operators give."""

import ctypes

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from emulation import GPU, LIGHT, SHUFFLED, TINY, Scratch, library, rows

from convert.engine.trt.row_cut import SHARES, STATES, RowCut, cut_rows
from convert.graph.export import build_graph, simplify
from convert.graph.model_file import load_model
from convert.graph.split import split
from robustscanner.gpu.kernels import Room, RowsCall, RowsSizes, plan_launch
from robustscanner.spec import ModelSpec, NetworkSpec
from tests.convert.conftest import TINY as TINY_MODEL
from training.model.robustscanner import RobustScanner


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = {node.name for node in session.get_inputs()}
    return dict(zip(names, session.run(names, {n: a for n, a in inputs.items() if n in wanted}), strict=True))


def wave(cut: RowCut, shares: np.ndarray, *, half: bool = False, **launch: int | bool | Scratch) -> np.ndarray:
    """States (N, H, W, D) of shares (N, H, W, 4D)."""
    kind = np.float16 if half else np.float32
    n, height, width, gates = shares.shape
    weights = {name: array.astype(np.float32 if name == "bias" else kind) for name, array in cut.weights.items()}
    sequences = np.ascontiguousarray(shares.reshape(n * height, width, gates // 4, 4).astype(kind))
    return rows(sequences, weights, **launch).astype(np.float32).reshape(n, height, width, gates // 4)


@pytest.fixture(scope="module")
def edge() -> onnx.ModelProto:
    """The encoder of a network with 128 hidden units, random and loud."""
    torch.manual_seed(0)
    model = RobustScanner(ModelSpec("edge-random", network=NetworkSpec("edge"))).eval()
    with torch.no_grad():
        model.encoder.weight.mul_(8)
        for weight in model.decoder.position.position_aware.rnn.parameters():
            weight.mul_(2)
    return split(simplify(build_graph(model, fold_values=True)), model.spec)[0]


@pytest.fixture(scope="module", params=["tiny", "edge"])
def cut(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, RowCut, int]:
    """An encoder, its halves, and how the CPU plays a GPU for its hidden size."""
    if request.param == "tiny":
        encoder, config = split(*load_model(TINY_MODEL)[:2])[0], TINY
    else:
        encoder, config = request.getfixturevalue("edge"), LIGHT
    return encoder, cut_rows(encoder), config


def pictures(batch: int) -> dict[str, np.ndarray]:
    images = np.random.default_rng(batch).integers(0, 256, (batch, 6, 20, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    return {"images": images, "valid_width": np.linspace(48, 160, batch).astype(np.int32) // 4 * 4}


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("clusters", [False, True])
def test_both_halves_and_the_kernel_are_the_encoder(
    cut: tuple[onnx.ModelProto, RowCut, int], batch: int, clusters: bool
) -> None:
    encoder, halves, config = cut
    inputs = pictures(batch)
    expected, front = run(encoder, inputs), run(halves.front, inputs)
    states = wave(halves, front[SHARES], config=config, clusters=clusters, groups=2, tile=min(3 * batch, 8))
    found = front | run(halves.back, {**front, STATES: states})
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("config", [SHUFFLED, GPU])
@pytest.mark.parametrize("half", [False, True])
def test_the_threads_of_a_gpu(edge: onnx.ModelProto, config: int, half: bool) -> None:
    halves = cut_rows(edge)
    shares = run(halves.front, pictures(1))[SHARES]
    if config == GPU:
        shares = np.ascontiguousarray(shares[:, :1, :6])  # 2,048 threads take their time
    expected = wave(halves, shares)
    got = wave(halves, shares, half=half, config=config, clusters=half)
    np.testing.assert_allclose(got, expected, atol=1e-2 if half else 1e-5)
    assert np.abs(expected).max() > 0.1


def test_one_column_and_many_waves() -> None:
    """A group that has several tiles to do begins each anew; a wave may be as short as one column."""
    halves = cut_rows(split(*load_model(TINY_MODEL)[:2])[0])
    shares = run(halves.front, pictures(3))[SHARES]
    scratch = Scratch()
    for columns in (1, 2, 40):
        some = np.ascontiguousarray(shares[:, :, :columns])
        expected = wave(halves, some, config=TINY, tile=1, groups=9)
        for clusters in (False, True):
            got = wave(halves, some, config=TINY, tile=2, groups=1, clusters=clusters, scratch=scratch)
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("clusters", [False, True])
def test_python_knows_how_much_shared_memory_a_block_takes(clusters: bool) -> None:
    for sequences in (1, 3, 96):
        launch = plan_launch(RowsSizes(sequences, 40), Room(4, 160_000, clusters))
        call = RowsCall(sequences=sequences, columns=40, tile=launch.tile)
        assert launch.shared_bytes == library().robustscanner_rows_shared_bytes(ctypes.byref(call), clusters)
