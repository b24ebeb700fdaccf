"""The session with the decode kernel, on the stand-in driver: the kernel is the real one, compiled for the CPU."""

import ctypes
import sys
from collections.abc import Iterator
from ctypes import Structure
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from fake_gpu import FakeGpu, installed, plan
from onnx import numpy_helper

from convert.engine.trt.attention import fuse_attention
from convert.engine.trt.half import to_half
from convert.engine.trt.kernel_weights import decode_weights
from convert.engine.trt.row_cut import SHARES, STATES, cut_rows
from convert.graph.export import export
from convert.graph.split import split
from robustscanner import Constraint, Recognizer
from robustscanner.engine import BatchRange, EngineManifest, file_sha256
from robustscanner.errors import EngineError
from robustscanner.gpu import tensorrt_session
from robustscanner.gpu.device import Gpu
from robustscanner.gpu.kernel_decoder import _say_columns
from robustscanner.gpu.kernels import DecodeCall, RowsCall, pack_row_weights, pack_weights
from robustscanner.gpu.tensorrt_session import TensorRTSession
from robustscanner.onnx_session import OnnxSession
from robustscanner.preprocess import load_image, make_batch
from robustscanner.regions import WORD
from robustscanner.session import GpuOptions, SessionOptions
from robustscanner.spec import ModelSpec, NetworkSpec
from training.checkpoint import save_checkpoint
from training.model.robustscanner import RobustScanner

ROOT = Path(__file__).parents[3]
EDGE = ROOT / "tests" / "models" / "edge-lstm.onnx"  # the row LSTM's kernel needs a model that has one
CROPS = sorted((ROOT / "calib_data" / "demo").glob("*.jpg"))
LARGEST = 5
PLAN_NAMES, KERNEL_NAMES = ("encoder.plan", "decoder.plan"), ("decoder.fatbin", "decoder.weights")
ROW_NAMES = ("front.plan", "back.plan", "rows.weights")

sys.path.append(str(ROOT / "tests" / "runtime" / "cuda"))
from emulation import LIGHT, library


@pytest.fixture(scope="module")
def reference() -> Iterator[OnnxSession]:
    with OnnxSession(EDGE, SessionOptions(threads=1)) as session:
        yield session


def write_bundle(folder: Path, path: Path, spec: ModelSpec, *, half: bool, rows: bool = False) -> Path:
    """Both plans, weights, and what stands for compiled kernels."""
    model = onnx.load(path)
    encoder, decoder = split(model, spec)
    if half:
        encoder, decoder = (to_half(part, ("values", "position")) for part in fuse_attention(encoder, decoder))
    for name, part in zip(PLAN_NAMES, (encoder, decoder), strict=True):
        (folder / name).write_bytes(plan(part, largest=LARGEST))
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (folder / KERNEL_NAMES[0]).write_bytes(b"compiled")
    packed = pack_weights(decode_weights(weights, np.float16 if half else np.float32), spec)
    (folder / KERNEL_NAMES[1]).write_bytes(packed)
    if rows:
        write_halves(folder, split(model, spec), half=half)
    return folder


def write_halves(folder: Path, graphs: tuple[onnx.ModelProto, onnx.ModelProto], *, half: bool) -> None:
    """The encoder before and after its row LSTM, and the weights of that."""
    cut = cut_rows(graphs[0])
    front, back = cut.front, cut.back
    if half:
        front = fuse_attention(front, graphs[1])[0]
        front, back = (to_half(part, ("values", "position", SHARES, STATES)) for part in (front, back))
    weights = cut.typed(np.float16 if half else np.float32)
    contents = plan(front, largest=LARGEST), plan(back, largest=LARGEST), pack_row_weights(weights)
    for name, data in zip(ROW_NAMES, contents, strict=True):
        (folder / name).write_bytes(data)


@pytest.fixture(scope="module", params=["float", "half, turned", "float, rows", "half, turned, rows"])
def bundle(request: pytest.FixtureRequest, reference: OnnxSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = request.param.split(", ")
    folder = tmp_path_factory.mktemp("bundle")
    return write_bundle(folder, EDGE, reference.spec, half="half" in kind, rows="rows" in kind)


def teach(gpu: FakeGpu) -> None:
    """What the kernels do: the emulation, at addresses of the host."""
    emulated = library()
    for precision, half in (("float", 0), ("half", 1)):
        for kernel, kind in (("decode", DecodeCall), ("rows", RowsCall)):
            run = getattr(emulated, f"robustscanner_{kernel}")

            def play(parameter: int, run: Any = run, kind: type[Structure] = kind, half: int = half) -> None:
                call = kind.from_buffer_copy((ctypes.c_char * ctypes.sizeof(kind)).from_address(parameter))
                pointers = [name for name, of in kind._fields_ if of is ctypes.c_void_p]
                for pointer in pointers:
                    if address := getattr(call, pointer):
                        setattr(call, pointer, ctypes.addressof(gpu.driver.memory(address, 1)))
                assert run(ctypes.byref(call), LIGHT, half, int(call.scratch_slots == 0)) > 0

            gpu.driver.teach(f"robustscanner_{kernel}_{precision}", ctypes.sizeof(kind), play)


def open_(bundle: Path, reference: OnnxSession, *, kernels: bool = True, **options: object) -> TensorRTSession:
    return TensorRTSession(
        [bundle / name for name in PLAN_NAMES],
        reference.spec,
        backend="tensorrt",
        options=SessionOptions(threads=1, gpu=GpuOptions(prepared=(1,), **options)),
        kernels=[path for name in (*KERNEL_NAMES, *ROW_NAMES) if kernels and (path := bundle / name).exists()],
    )


def pictures(reference: OnnxSession, count: int) -> tuple[np.ndarray, np.ndarray]:
    return make_batch([load_image(path) for path in CROPS[:count]], reference.spec.input)


@pytest.mark.parametrize("capability", [(8, 7), (9, 0)])
@pytest.mark.parametrize("integrated", [False, True])
def test_a_word_is_one_launch_and_one_wait(
    bundle: Path, reference: OnnxSession, integrated: bool, capability: tuple[int, int]
) -> None:
    """Pictures are copied in the recording; the text lies in the host's memory when the wait is over."""
    given = pictures(reference, LARGEST)
    with installed(FakeGpu(integrated=integrated, compute_capability=capability)) as gpu:
        teach(gpu)
        with open_(bundle, reference) as session:
            for count in range(1, LARGEST + 1):
                tokens, scores = session.run(given[0][:count], given[1][:count])
                expected = reference.run(given[0][:count], given[1][:count])
                np.testing.assert_array_equal(tokens, expected[0])
                np.testing.assert_allclose(scores, expected[1], atol=1e-2)
            before, plans = gpu.calls, gpu.runs.copy()
            session.run(given[0][:1], given[1][:1])
            calls = {name: count for name, count in (gpu.calls - before).items() if " " not in name}
    needed = ("cuGraphLaunch", "cuEventRecord", "cuEventSynchronize", "cuCtxPushCurrent", "cuCtxPopCurrent")
    assert calls == dict.fromkeys(needed, 1)
    assert gpu.runs - plans == ({"encoder": 1, "back": 1} if (bundle / ROW_NAMES[0]).exists() else {"encoder": 1})


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_words_that_are_drawn_on_the_gpu(
    bundle: Path, reference: OnnxSession, cuda_graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read from the input slab, and nothing of the host's overwrites them."""
    images, widths = pictures(reference, 3)
    words = np.zeros(3, WORD)
    words["valid"] = widths

    class Drawn:
        def __init__(self, gpu: Gpu, *_: object, **__: object) -> None:
            self._drv = gpu.drv

        def draw(self, _: object, words: np.ndarray, canvases: int, valid: int, shape: tuple[int, int, int]) -> None:
            rows = [*range(len(words)), *[len(words) - 1] * (shape[0] - len(words))]
            self._drv.memcpy_htod(canvases, np.ascontiguousarray(images[rows]))
            self._drv.memcpy_htod(valid, np.ascontiguousarray(widths[rows]))
            self._drv.Context.synchronize()

    monkeypatch.setattr(tensorrt_session, "Cropper", Drawn)
    expected = reference.run(images, widths)[0].tolist()
    with installed(FakeGpu()) as gpu:
        teach(gpu)
        with open_(bundle, reference, cuda_graphs=cuda_graphs) as session, session._gpu.current():
            tokens, scores = np.empty((3, 40), np.int32), np.empty((3, 40), np.float32)
            for _ in range(2):
                session._worker.read_words(None, words, tokens, scores)
                assert tokens.tolist() == expected
                session.run(images[::-1], widths[::-1])


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_constraints(bundle: Path, reference: OnnxSession, cuda_graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, and none in between; texts, and the scores among all letters."""
    plate, words = Constraint(pattern=r"[A-Z]{2}\d{2}[A-Z]{3}"), CROPS[:3]
    kinds = [None, plate, Constraint("a-z", length=(2, 6)), Constraint(pattern="(ab|ba)+", length=4), None]
    with Recognizer(EDGE) as recognizer:
        expected = [recognizer.read_batch(words, constraint=constraint) for constraint in kinds]
    with installed(FakeGpu()) as gpu:
        teach(gpu)
        with open_(bundle, reference, cuda_graphs=cuda_graphs, decoder="kernel") as session:
            monkeypatch.setattr("robustscanner.recognizer.open_engine", lambda *_: session)
            recognizer = Recognizer(EDGE)
            for constraint, readings in zip(kinds, expected, strict=True):
                found = recognizer.read_batch(words, constraint=constraint)
                assert [reading.text for reading in found] == [reading.text for reading in readings]
                assert [r.score for r in found] == pytest.approx([r.score for r in readings], rel=0.1, abs=1e-6)
                assert recognizer.read(words[0], constraint=constraint).text == readings[0].text


def test_words_from_the_narrowest_to_the_canvas(bundle: Path, reference: OnnxSession) -> None:
    size, image = reference.spec.input, load_image(CROPS[0])
    widths_px = np.linspace(size.min_width_px, size.width_px, 15).astype(int)
    images, widths = make_batch([cv2.resize(image, (int(w), size.height_px)) for w in widths_px], size)
    assert (widths.min(), widths.max()) == (size.min_width_px, size.width_px)
    expected = reference.run(images, widths)[0]
    with installed(FakeGpu()) as gpu:
        teach(gpu)
        with open_(bundle, reference, decoder="kernel") as session:
            for batch in (1, 3, LARGEST):
                for start in range(0, len(images), batch):
                    rows = slice(start, start + batch)
                    assert session.run(images[rows], widths[rows])[0].tolist() == expected[rows].tolist()


def test_an_engine_names_the_files_of_its_kernels(bundle: Path, reference: OnnxSession) -> None:
    files = {
        name: file_sha256(bundle / name)
        for name in (*PLAN_NAMES, *KERNEL_NAMES, *ROW_NAMES)
        if (bundle / name).exists()
    }
    device = {"name": "Orin", "compute_capability": "sm_87"}
    facts = {"versions": {"tensorrt": "10.3.0"}, "device": device, "accuracy": None, "history": (), "files": files}
    manifest = EngineManifest(reference.spec, "fp16", BatchRange(1, 1, LARGEST), "tensorrt", **facts)
    (bundle / "engine.json").write_text(manifest.to_json(), encoding="utf-8")
    options = SessionOptions(threads=1, gpu=GpuOptions(prepared=(1,), decoder="kernel"))
    with Recognizer(EDGE) as recognizer:
        expected = [reading.text for reading in recognizer.read_batch(CROPS[:3])]
    with installed(FakeGpu()) as gpu:
        teach(gpu)
        with Recognizer(bundle, options=options) as recognizer:
            assert [reading.text for reading in recognizer.read_batch(CROPS[:3])] == expected
        assert bool(gpu.runs["back"]) == (ROW_NAMES[0] in files)
        assert not gpu.runs["decoder"]


def test_reads_without_recordings(bundle: Path, reference: OnnxSession) -> None:
    given = pictures(reference, 2)
    with installed(FakeGpu()) as gpu:
        teach(gpu)
        with open_(bundle, reference, cuda_graphs=False) as session:
            assert session.run(*given)[0].tolist() == reference.run(*given)[0].tolist()
            assert not gpu.calls["cuGraphLaunch"]


@pytest.mark.parametrize("call", ["cuModuleLoadData", "cuModuleGetFunction", "cuFuncSetAttribute"])
def test_what_cannot_run_here_is_read_step_by_step(
    bundle: Path, reference: OnnxSession, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = pictures(reference, 2)
    gpu = FakeGpu()
    gpu.fail(call, 0)
    with installed(gpu):
        teach(gpu)
        with open_(bundle, reference, steps_per_launch=2, lookahead=0) as session:
            assert session.run(*given)[0].tolist() == reference.run(*given)[0].tolist()
    assert f"step by step, which is slower: {call}" in caplog.text


def test_without_the_row_kernel_the_whole_encoder_runs(
    bundle: Path, reference: OnnxSession, caplog: pytest.LogCaptureFixture
) -> None:
    if not (bundle / ROW_NAMES[0]).exists():
        pytest.skip("it has none")
    given, gpu = pictures(reference, 2), FakeGpu()
    gpu.fail("cuModuleGetFunction")
    with installed(gpu):
        teach(gpu)
        with open_(bundle, reference) as session:
            assert session.run(*given)[0].tolist() == reference.run(*given)[0].tolist()
        assert not gpu.runs["back"]
    assert "runs the row LSTM in TensorRT, which is slower: cuModuleGetFunction" in caplog.text


def test_steps_may_be_asked_for(bundle: Path, reference: OnnxSession) -> None:
    given = pictures(reference, 1)
    with (
        installed(FakeGpu()) as gpu,
        open_(bundle, reference, decoder="steps", steps_per_launch=2, lookahead=0) as session,
    ):
        assert session.run(*given)[0].tolist() == reference.run(*given)[0].tolist()
        assert not gpu.calls["cuModuleLoadData"]


def test_a_kernel_that_was_asked_for_has_to_run(bundle: Path, reference: OnnxSession, tmp_path: Path) -> None:
    with installed(FakeGpu()), pytest.raises(EngineError, match="has no decode kernel; build it with --decoder kernel"):
        open_(bundle, reference, kernels=False, decoder="kernel")
    for name in (*PLAN_NAMES, KERNEL_NAMES[0]):
        (tmp_path / name).symlink_to(bundle / name)
    (tmp_path / KERNEL_NAMES[1]).write_bytes(b"short")
    with installed(FakeGpu()) as gpu:
        teach(gpu)
        with pytest.raises(EngineError, match=r"decoder\.weights has 5 bytes, not"):
            open_(tmp_path, reference, decoder="kernel")


def test_joint_scoring(tmp_path: Path) -> None:
    """A model in which CTC has a say, with random weights."""
    torch.manual_seed(1)
    model = RobustScanner(ModelSpec("joint", network=NetworkSpec("edge", ctc_weight=0.4))).eval()
    with torch.no_grad():
        model.encoder.weight.mul_(4)
        model.ctc_head.weight.mul_(6)
        model.decoder.prediction.weight.mul_(20)
    save_checkpoint(tmp_path / "joint.safetensors", model, [])
    export(tmp_path / "joint.safetensors", tmp_path / "joint.onnx", fold_values=False, force=False)
    with OnnxSession(tmp_path / "joint.onnx", SessionOptions(threads=1)) as joint:
        given, folder = pictures(joint, 3), write_bundle(tmp_path, tmp_path / "joint.onnx", joint.spec, half=False)
        with installed(FakeGpu()) as gpu:
            teach(gpu)
            digits = Constraint("0-9", length=(3, 5)).automaton(joint.spec).mask()
            with open_(folder, joint, decoder="kernel") as session:
                assert session.run(*given)[0].tolist() == joint.run(*given)[0].tolist()
                found, expected = (each.run(*given, digits) for each in (session, joint))
                assert found[0].tolist() == expected[0].tolist()
                np.testing.assert_allclose(found[1], expected[1], atol=1e-4)


def test_where_the_memory_tells_of_ctc_columns() -> None:
    """As training/model/joint.py lays it out: one column before the first, and products of what says nothing."""
    words, columns, classes = 3, 5, 4
    posteriors = np.random.default_rng(0).dirichlet(np.ones(classes + 1), (words, columns)).astype(np.float32)
    following = np.concatenate([posteriors[..., :-1], np.zeros((words, 1, classes), np.float32)], 1)
    waits = np.zeros((words, columns + 1, columns + 1), np.float32)
    for first in range(columns + 1):
        for last in range(first + 1, columns + 1):
            waits[:, first, last] = posteriors[:, first:last, -1].prod(1)
    call = DecodeCall(columns=columns, classes=classes)
    spec = SimpleNamespace(network=SimpleNamespace(ctc_weight=0.25))
    _say_columns(call, {"ctc_following": following.ctypes.data, "ctc_stays": waits.ctypes.data}, spec)
    assert call.ctc_weight == 0.25
    for word, column in np.ndindex(words, columns):
        label = call.labels + 4 * (word * call.label_word + column * call.label_step)
        blank = call.blanks + 4 * (word * call.blank_word + column * call.blank_step)
        assert list((ctypes.c_float * classes).from_address(label)) == posteriors[word, column, :-1].tolist()
        assert ctypes.c_float.from_address(blank).value == posteriors[word, column, -1]
