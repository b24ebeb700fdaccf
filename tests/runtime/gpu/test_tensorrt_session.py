"""The TensorRT session on the stand-in driver: what it reads, in how many steps, and what it leaves behind."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_gpu import FakeGpu, installed, plan

from convert.engine.trt.extent import open_shapes
from convert.graph.model_file import load_model
from convert.graph.split import split
from robustscanner import Constraint, ConstraintError, Reading, Recognizer
from robustscanner.engine import default_engine
from robustscanner.errors import EngineError
from robustscanner.gpu.bucket import Size
from robustscanner.gpu.decoding import batch_buckets
from robustscanner.gpu.tensorrt_session import TensorRTSession, host_facts
from robustscanner.onnx_session import OnnxSession
from robustscanner.session import GpuOptions, SessionOptions
from robustscanner.spec import ModelSpec
from robustscanner.words import WordList
from tests.cuda_driver.driver import ILLEGAL_ADDRESS, OUT_OF_MEMORY

ROOT = Path(__file__).parents[3]
TINY = ROOT / "tests" / "tiny" / "tiny.onnx"
APIS = sorted((ROOT / "tests" / "tensorrt_api").glob("*.json"))
FIXED = GpuOptions(prepared=(1,), steps_per_launch=2, lookahead=0)  # nothing to measure
LARGEST = 5

Pictures = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def reference() -> Iterator[OnnxSession]:
    with OnnxSession(TINY, SessionOptions(threads=1)) as session:
        yield session


@pytest.fixture(scope="module")
def spec(reference: OnnxSession) -> ModelSpec:
    return reference.spec


@pytest.fixture(scope="module")
def halves(spec: ModelSpec) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return split(onnx.load(TINY), spec)


@pytest.fixture
def bundle(halves: tuple[onnx.ModelProto, onnx.ModelProto], tmp_path: Path) -> Path:
    for name, half in zip(("encoder.plan", "decoder.plan"), halves, strict=True):
        (tmp_path / name).write_bytes(plan(half, largest=LARGEST))
    return tmp_path


Open = Callable[..., TensorRTSession]


@pytest.fixture
def open_(bundle: Path, spec: ModelSpec) -> Open:
    def open_session(gpu: GpuOptions = FIXED, backend: str = "tensorrt") -> TensorRTSession:
        paths = bundle / "encoder.plan", bundle / "decoder.plan"
        return TensorRTSession(paths, spec, backend=backend, options=SessionOptions(threads=1, gpu=gpu))

    return open_session


def pictures(count: int, seed: int = 0) -> Pictures:
    """Blotches of several widths."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 6, 20, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    return images, rng.choice(np.arange(48, 161, 4), count).astype(np.int32)


def assert_same(session: TensorRTSession, reference: OnnxSession, given: Pictures) -> None:
    tokens, scores = session.run(*given)
    expected_tokens, expected_scores = reference.run(*given)
    np.testing.assert_array_equal(tokens, expected_tokens)
    np.testing.assert_allclose(scores, expected_scores, atol=5e-5)  # rounding, which differs from CPU to CPU


def short_words(reference: OnnxSession) -> tuple[Pictures, int]:
    """Pictures of the shortest of many words, and the steps until the last of them has ended."""
    images, widths = pictures(60)
    tokens, _ = reference.run(images, widths)
    lengths = (tokens != reference.spec.charset.pad_id).sum(1)  # (N,)
    shortest = np.argsort(lengths)[:3]
    return (images[shortest], widths[shortest]), int(lengths[shortest].max())


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("steps_per_launch", [1, 2, 3, 12])
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_reads_what_the_one_graph_reads(
    open_: Open, reference: OnnxSession, steps_per_launch: int, lookahead: int, cuda_graphs: bool
) -> None:
    options = GpuOptions(steps_per_launch=steps_per_launch, lookahead=lookahead, cuda_graphs=cuda_graphs)
    with installed(FakeGpu()) as gpu, open_(options) as session:
        for count in range(1, LARGEST + 1):
            assert_same(session, reference, pictures(count, seed=count))
        assert bool(gpu.calls["cuGraphLaunch"]) == cuda_graphs


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_a_device_that_is_far_ahead_of_the_host(open_: Open, reference: OnnxSession, cuda_graphs: bool) -> None:
    """Whoever sees that all words have ended finds their last letters, wherever in the next block the device is."""
    images, widths = pictures(60)
    tokens, _ = reference.run(images, widths)
    lengths = (tokens != reference.spec.charset.pad_id).sum(1)
    words = [slice(found[0], found[0] + 1) for length in range(2, 9) if len(found := np.flatnonzero(lengths == length))]
    assert len(words) > 2
    for steps_per_launch in (1, 2, 3):
        options = GpuOptions(steps_per_launch=steps_per_launch, lookahead=1, cuda_graphs=cuda_graphs)
        with installed(FakeGpu()) as gpu, open_(options) as session:
            for pieces in range(steps_per_launch + 2):
                gpu.driver.run_ahead(pieces)
                for word in words:
                    assert_same(session, reference, (images[word], widths[word]))


@pytest.mark.parametrize("integrated", [False, True])
def test_schedule_is_chosen_by_measuring(open_: Open, reference: OnnxSession, integrated: bool) -> None:
    with installed(FakeGpu(integrated=integrated)), open_(GpuOptions()) as session:
        for count in (1, 4, 2, 1):
            assert_same(session, reference, pictures(count))


@pytest.mark.parametrize("integrated", [False, True])
def test_integrated_gpu_reads_pictures_where_they_are(open_: Open, reference: OnnxSession, integrated: bool) -> None:
    with installed(FakeGpu(integrated=integrated)) as gpu, open_() as session:
        for count in range(1, LARGEST + 1):
            assert_same(session, reference, pictures(count))
        assert bool(gpu.calls["cuMemcpyHtoDAsync"]) != integrated
        assert gpu.left()["page-locked allocations"] == 4  # pictures, text, flag, what is allowed


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_driver_calls_of_a_word(open_: Open, reference: OnnxSession, integrated: bool, cuda_graphs: bool) -> None:
    """Everything is in the recordings but their launch, a mark behind each, and the wait for it."""
    given, needed = short_words(reference)
    options = GpuOptions(steps_per_launch=2, lookahead=1, cuda_graphs=cuda_graphs)
    with installed(FakeGpu(integrated=integrated)) as gpu, open_(options) as session:
        session.run(*given)
        before = gpu.calls
        session.run(*given)
        calls = gpu.calls - before
    waits = -(-needed // 2)
    blocks = waits + 1
    copies = {"cuMemcpyDtoDAsync": 1, "cuMemcpyDtoHAsync": 2 * blocks} | (
        {} if integrated else {"cuMemcpyHtoDAsync": 1}
    )
    expected = {"cuGraphLaunch": blocks} if cuda_graphs else {"execute_async_v3": 1 + 2 * blocks, **copies}
    expected |= {"cuEventRecord": blocks, "cuEventSynchronize": waits, "cuCtxPushCurrent": 1, "cuCtxPopCurrent": 1}
    assert {name: count for name, count in calls.items() if " " not in name} == expected
    print(f"integrated {integrated}, graphs {cuda_graphs}, {needed} steps: {expected}")


@pytest.mark.parametrize("missing", ["cuGraphInstantiate", "cuGraphUpload", "cuStreamBeginCapture"])
def test_functions_that_an_old_driver_lacks(
    open_: Open, reference: OnnxSession, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*arguments: object) -> None:
        raise RuntimeError(f'Function "{missing}" not found')  # as cuda-bindings says it

    with installed(FakeGpu()) as gpu:
        monkeypatch.setattr(__import__("cuda.bindings.driver", fromlist=["driver"]), missing, absent)
        with open_() as session:
            assert_same(session, reference, pictures(3))
            assert bool(gpu.calls["cuGraphLaunch"]) == (missing == "cuGraphUpload")


def test_batches_are_made_ready_when_it_is_opened(open_: Open) -> None:
    with installed(FakeGpu()) as gpu, open_(GpuOptions(steps_per_launch=2, lookahead=0)) as session:
        contexts = gpu.calls["create_execution_context"]
        for count in (1, LARGEST):
            session.run(*pictures(count))
        assert gpu.calls["create_execution_context"] == contexts


OPEN_ENCODER = """<ir_version: 8, opset_import: ["": 17]>
encoder (uint8[N, 48, W, 3] images, int32[N] valid_width) => (float[N, W] columns) {
  row = Gather <axis = 1> (images, first)
  red = Gather <axis = 2> (row, first)
  columns = Cast <to = 1> (red)
}"""
OPEN_STEP = """<ir_version: 8, opset_import: ["": 17]>
step (float[N, W] columns, int32[N, 12] tokens, float[N, 12] scores, int32[1] step, int32[N] token, int32[N] running,
      float[N, W] carried)
  => (int32[N, 12] tokens_next, float[N, 12] scores_next, int32[1] step_next, int32[N] token_next,
      int32[N] running_next, float[N, W] carried_next, int32[1] going) {
  here = Gather <axis = 1> (columns, step)
  said = Cast <to = 6> (here)
  is_here = Equal (places, step)
  tokens_next = Where (is_here, said, tokens)
  carried_next = Add (carried, columns)
  mean = ReduceMean <axes = [1], keepdims = 1> (carried_next)
  scores_next = Where (is_here, mean, scores)
  token_next = Squeeze (said, second)
  running_next = Identity (running)
  going = ReduceMax <axes = [0], keepdims = 1> (running)
  step_next = Add (step, one)
}"""


def test_canvases_of_several_widths(tmp_path: Path, spec: ModelSpec) -> None:
    """A model that says its pixels, and carries along a state as wide as the canvas."""
    constants = {"first": np.array(0, np.int64), "second": np.array([1], np.int64), "one": np.array([1], np.int32)}
    constants["places"] = np.arange(12, dtype=np.int32)[None]
    wide = [(-1, 64), (-1, 96), (-1, 160)]
    shapes = {"images": [(-1, 48, width, 3) for _, width in wide], "columns": wide, "carried": wide}
    paths = [tmp_path / "encoder.plan", tmp_path / "decoder.plan"]
    for path, text in zip(paths, (OPEN_ENCODER, OPEN_STEP), strict=True):
        model = onnx.parser.parse_model(text)
        model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
        path.write_bytes(plan(model, largest=4, shapes=shapes))
    spec = replace(spec, input=replace(spec.input, canvas_step_px=32))  # 64, 96, 128 and 160 pixels
    options = SessionOptions(threads=1, gpu=FIXED)
    with installed(FakeGpu()) as gpu, TensorRTSession(paths, spec, backend="tensorrt", options=options) as session:
        for count, width in ((1, 160), (3, 96), (4, 128), (2, 96), (1, 96), (3, 160)):
            images = np.random.default_rng(width).integers(0, 90, (count, 48, width, 3), np.uint8)
            tokens, scores = session.run(images, np.full(count, width, np.int32))
            np.testing.assert_array_equal(tokens, images[:, 0, :12, 0])
            steps = np.arange(1, 13)
            np.testing.assert_allclose(scores, images[:, 0, :, 0].mean(1)[:, None] * steps, rtol=1e-5)
        with pytest.raises(EngineError, match=r"given uint8 \[1, 48, 100, 3\], not uint8 \[1, 48, 160, 3\]"):
            session.run(np.zeros((1, 48, 100, 3), np.uint8), np.full(1, 100, np.int32))
        before = gpu.left()
        session.run(np.zeros((4, 48, 128, 3), np.uint8), np.full(4, 128, np.int32))
        assert gpu.left() == before


def test_one_picture_has_a_step_of_its_own(
    bundle: Path, spec: ModelSpec, halves: tuple[onnx.ModelProto, onnx.ModelProto], reference: OnnxSession
) -> None:
    paths = [bundle / name for name in ("encoder.plan", "decoder.plan", "decoder-1.plan")]
    paths[2].write_bytes(plan(halves[1], largest=1))
    (bundle / "decoder.plan").write_bytes(plan(halves[1], smallest=1, largest=LARGEST))
    options = SessionOptions(threads=1, gpu=FIXED)
    with installed(FakeGpu()), TensorRTSession(paths, spec, backend="tensorrt", options=options) as session:
        assert len(session._worker._rig.decoder_for(Size(1, 160)).name) > len("decoder.plan")
        for count in (1, 3, 1, 6):
            assert_same(session, reference, pictures(count))


CONSTRAINTS = [
    Constraint("0-9"),
    Constraint(pattern=r"[A-Z]{2}\d{2}[A-Z]{3}"),
    Constraint(pattern="(ab|ba)+", length=6),  # what may follow depends on what stands before
    Constraint("A-Za-z", length=(5, 8)),
]


def noise(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [
        rng.integers(0, 256, (6, size, 3), np.uint8).repeat(8, 0).repeat(8, 1) for size in rng.integers(2, 30, count)
    ]


def assert_same_readings(found: list[Reading], expected: list[Reading]) -> None:
    assert [reading.text for reading in found] == [reading.text for reading in expected]
    assert [reading.score for reading in found] == pytest.approx([reading.score for reading in expected], rel=1e-3)


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_constraints(open_: Open, cuda_graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, and none in between."""
    words, kinds = noise(7), [None, *CONSTRAINTS, WordList(["cat", "dog", "sam"]), None]
    with Recognizer(TINY) as recognizer:
        expected = [recognizer.read_batch(words, constraint=constraint) for constraint in kinds]
    with installed(FakeGpu()), open_(replace(FIXED, lookahead=1, cuda_graphs=cuda_graphs)) as session:
        monkeypatch.setattr("robustscanner.recognizer.open_engine", lambda *_: session)
        recognizer = Recognizer(TINY)
        for constraint, readings in zip(kinds, expected, strict=True):
            assert_same_readings(recognizer.read_batch(words, constraint=constraint), readings)
            assert_same_readings([recognizer.read(words[0], constraint=constraint)], readings[:1])


def test_constraints_in_canvases_of_several_widths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the shipped model, in which CTC has a say, too."""
    small, crops = default_engine(), sorted((ROOT / "calib_data" / "demo").glob("*.jpg"))[:4]
    model, spec, _ = load_model(small)
    encoder, decoder = split(model, spec)
    shapes = {name: list(sizes) for name, sizes in open_shapes(encoder, decoder, spec.input.canvas_widths).items()}
    paths = [tmp_path / "encoder.plan", tmp_path / "decoder.plan"]
    for path, part in zip(paths, (encoder, decoder), strict=True):
        path.write_bytes(plan(part, largest=2, shapes=shapes))
    kinds = [CONSTRAINTS[1], None, CONSTRAINTS[3]]
    with Recognizer(small) as recognizer:
        expected = [recognizer.read_batch(crops, constraint=constraint) for constraint in kinds]
    options = SessionOptions(threads=1, gpu=FIXED)
    with installed(FakeGpu()), TensorRTSession(paths, spec, backend="tensorrt", options=options) as session:
        monkeypatch.setattr("robustscanner.recognizer.open_engine", lambda *_: session)
        for constraint, readings in zip(kinds, expected, strict=True):
            assert_same_readings(Recognizer(small, constraint=constraint).read_batch(crops), readings)
        assert len({size.width_px for size in session._worker._prepared}) > 2


def test_a_constraint_is_copied_where_it_changes(open_: Open, spec: ModelSpec) -> None:
    given, masks = pictures(3), [constraint.automaton(spec).mask() for constraint in CONSTRAINTS[:2]]
    with installed(FakeGpu(integrated=True)) as gpu, open_() as session:  # whose pictures are not copied
        copies = []
        for mask in (None, masks[0], masks[0], masks[1], None, None):
            before = gpu.calls
            session.run(*given, mask)
            copies.append((gpu.calls - before)["cuMemcpyHtoDAsync"])
    assert copies == [0, 1, 0, 1, 1, 0]


def without_allowed(step: onnx.ModelProto) -> onnx.ModelProto:
    """As engines were before they took constraints."""
    old = onnx.ModelProto()
    old.CopyFrom(step)
    (allowed,) = (value for value in old.graph.input if value.name == "allowed")
    shape = [size.dim_value for size in allowed.type.tensor_type.shape.dim]
    old.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(shape, np.float32), "allowed"))
    old.graph.input.remove(allowed)
    return old


def test_engines_from_before_there_were_constraints(
    open_: Open,
    bundle: Path,
    halves: tuple[onnx.ModelProto, onnx.ModelProto],
    reference: OnnxSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (bundle / "decoder.plan").write_bytes(plan(without_allowed(halves[1]), largest=LARGEST))
    mask = CONSTRAINTS[0].automaton(reference.spec).mask()
    with installed(FakeGpu()), open_() as session:
        assert_same(session, reference, pictures(3))
        with pytest.raises(EngineError, match="older than constraints, and takes none; build it again"):
            session.run(*pictures(3), mask)
        monkeypatch.setattr("robustscanner.recognizer.open_engine", lambda *_: session)
        with pytest.raises(ConstraintError, match="build it again"):
            Recognizer(TINY, constraint=CONSTRAINTS[0])


def test_what_is_allowed_has_a_shape(open_: Open) -> None:
    with installed(FakeGpu()), open_() as session, pytest.raises(EngineError, match=r"allowed is float64 \[3\], not"):
        session.run(*pictures(1), np.zeros(3))  # type: ignore[arg-type]


def test_no_pictures(open_: Open) -> None:
    with installed(FakeGpu()), open_() as session:
        tokens, scores = session.run(*pictures(0))
    assert tokens.shape == scores.shape == (0, 12)


@pytest.mark.parametrize("count", [6, 11, 23])
def test_any_number_of_pictures(open_: Open, reference: OnnxSession, count: int) -> None:
    with installed(FakeGpu()), open_() as session:
        assert session.max_batch == LARGEST
        assert_same(session, reference, pictures(count))


def test_engines_with_a_smallest_batch(
    open_: Open, bundle: Path, halves: tuple[onnx.ModelProto, onnx.ModelProto], reference: OnnxSession
) -> None:
    for name, half in zip(("encoder.plan", "decoder.plan"), halves, strict=True):
        (bundle / name).write_bytes(plan(half, smallest=3, largest=4))
    with installed(FakeGpu()), open_() as session:
        for count in (1, 2, 3, 4, 6):
            assert_same(session, reference, pictures(count))


@pytest.mark.parametrize(("steps_per_launch", "lookahead"), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_stops_when_the_last_row_has_ended(
    open_: Open, reference: OnnxSession, steps_per_launch: int, lookahead: int, cuda_graphs: bool
) -> None:
    given, needed = short_words(reference)
    assert needed < 12 - 2 * steps_per_launch  # or this would prove nothing
    options = GpuOptions(steps_per_launch=steps_per_launch, lookahead=lookahead, cuda_graphs=cuda_graphs)
    with installed(FakeGpu()) as gpu, open_(options) as session:
        session.run(*given)
        gpu.runs.clear()
        session.run(*given)
        blocks = -(-needed // steps_per_launch) + lookahead
        assert gpu.runs == {"encoder": 1, "decoder": blocks * steps_per_launch}


def test_rows_that_fill_a_bucket_cost_no_steps(open_: Open, reference: OnnxSession) -> None:
    given, needed = short_words(reference)
    options = GpuOptions(steps_per_launch=1, lookahead=0, buckets=(5,))
    with installed(FakeGpu()) as gpu, open_(options) as session:
        session.run(*pictures(5))
        gpu.runs.clear()
        session.run(*given)
        assert gpu.runs["decoder"] == needed


def test_buckets_are_prepared_when_they_are_needed(open_: Open, reference: OnnxSession) -> None:
    with installed(FakeGpu()) as gpu, open_() as session:
        session.run(*pictures(3))
        contexts = gpu.calls["create_execution_context"]
        session.run(*pictures(4))  # the same bucket
        assert gpu.calls["create_execution_context"] == contexts
        session.run(*pictures(2))
        assert gpu.calls["create_execution_context"] > contexts
        assert batch_buckets(1, LARGEST) == (1, 2, 4, 5)


def test_nothing_grows(open_: Open) -> None:
    with installed(FakeGpu()) as gpu, open_() as session:
        for count in (1, 2, 4, 5):
            session.run(*pictures(count))
        before = gpu.left()
        for count in (1, 7, 2, 4, 5, 1, 3):
            session.run(*pictures(count))
        assert gpu.left() == before


@pytest.mark.parametrize("path", APIS, ids=lambda path: path.stem)
def test_uses_only_what_each_version_has(open_: Open, reference: OnnxSession, path: Path) -> None:
    api = json.loads(path.read_text(encoding="utf-8"))
    backend = "tensorrt-rtx" if path.stem.startswith("rtx") else "tensorrt"
    with installed(FakeGpu(api=api), backend), open_(backend=backend) as session:
        for count in (1, 3, 6):
            assert_same(session, reference, pictures(count))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_parts_fall_back_to_plain_launches_on_their_own(
    open_: Open, reference: OnnxSession, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = FakeGpu()
    gpu.fail(f"{part} recording", 0)
    with installed(gpu), open_() as session, caplog.at_level(logging.WARNING):
        for count in (1, 2, 3, 1):
            assert_same(session, reference, pictures(count))
        assert gpu.calls["cuGraphLaunch"]  # of the other part
        warnings = [record.message for record in caplog.records]
        assert len(warnings) == 1
        assert warnings[0].startswith(f"{part}.plan runs without CUDA graphs, which is slower: {part}.plan: failed")


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_recordings_that_fail(open_: Open, reference: OnnxSession, call: str, which: int) -> None:
    gpu = FakeGpu()
    gpu.fail(call, which)
    with installed(gpu), open_() as session:
        for count in (1, 2, 1):
            assert_same(session, reference, pictures(count))
        assert bool(gpu.calls["cuGraphLaunch"]) == (which != 0)


def test_what_cannot_be_recorded_is_not(open_: Open, reference: OnnxSession) -> None:
    with installed(FakeGpu(recordable=False)) as gpu, open_() as session:
        assert_same(session, reference, pictures(3))
        assert not gpu.calls["cuStreamBeginCapture"]


def test_without_cuda_bindings(open_: Open, reference: OnnxSession, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed(FakeGpu()) as gpu:
        monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
        with open_() as session:
            assert_same(session, reference, pictures(3))
            assert not gpu.calls["cuStreamBeginCapture"]


def test_one_context_for_each_profile(open_: Open, reference: OnnxSession) -> None:
    """As in TensorRT 8.5: contexts are shared and wired anew."""
    with installed(FakeGpu(one_context_per_profile=True)), open_() as session:
        for count in (1, 2, 5, 1, 3):
            assert_same(session, reference, pictures(count))


def test_shared_context_is_wired_anew_after_a_failure(open_: Open, reference: OnnxSession) -> None:
    with installed(FakeGpu(one_context_per_profile=True)) as gpu, open_() as session:
        for count in (1, 2, 1):
            assert_same(session, reference, pictures(count))
        for later in range(2, 40):  # every address of the encoder, and of the decoder
            gpu.fail("set_tensor_address", gpu.calls["set_tensor_address"] + later)
            with suppress(EngineError):
                session.run(*pictures(2))
            assert_same(session, reference, pictures(1))


def test_threads_share_a_session(open_: Open, reference: OnnxSession) -> None:
    wrong: list[object] = []

    def work(session: TensorRTSession, seed: int) -> None:
        try:
            for count in (1, 3, 2):
                assert_same(session, reference, pictures(count, seed))
        except BaseException as error:
            wrong.append(error)

    with installed(FakeGpu()), open_() as session:
        threads = [threading.Thread(target=work, args=(session, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_two_sessions_at_once(open_: Open, reference: OnnxSession) -> None:
    with installed(FakeGpu()), open_() as first:
        with open_(GpuOptions(steps_per_launch=3, lookahead=1)) as second:
            for count in (2, 4):
                assert_same(first, reference, pictures(count))
                assert_same(second, reference, pictures(count, seed=9))
        assert_same(first, reference, pictures(3))


def test_context_is_put_back(open_: Open) -> None:
    with installed(FakeGpu()) as gpu, open_() as session:
        assert gpu.driver.depth == 0
        session.run(*pictures(2))
        assert gpu.driver.depth == 0


def test_closing_twice_and_running_afterwards(open_: Open, bundle: Path) -> None:
    with installed(FakeGpu()):
        session = open_()
        session.run(*pictures(2))
        session.close()
        session.close()
        with pytest.raises(EngineError, match="already closed; open it again"):
            session.run(*pictures(1))


def test_forgotten_session_frees_everything(open_: Open) -> None:
    with installed(FakeGpu()):
        open_().run(*pictures(2))


@pytest.mark.parametrize("integrated", [False, True])
def test_too_little_memory_leaves_nothing(open_: Open, integrated: bool) -> None:
    with installed(FakeGpu(integrated=integrated)) as gpu, open_():
        allocations = {name: gpu.calls[name] for name in ("cuMemAlloc", "cuMemHostAlloc", "cuMemAllocHost")}
    assert sum(allocations.values()) > 8
    for name, which in ((name, which) for name, count in allocations.items() for which in range(1, count + 1)):
        gpu = FakeGpu(integrated=integrated)
        gpu.fail(name, -which, status=OUT_OF_MEMORY)  # PyCUDA tries a second time
        with installed(gpu), pytest.raises(EngineError, match=rf"too little GPU memory \({name} .*--max-batch"):
            open_()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("deserialize_cuda_engine", "encoder.plan: TensorRT 10.3.0 cannot open it on sm_87: .*magicTagRead == kMAGIC"),
        ("create_execution_context", "encoder.plan: no execution context: CUDA initialization failure"),
        ("set_input_shape", r"encoder.plan: refuses images \[\d, 48, 160, 3\]"),
        ("set_tensor_address", "encoder.plan: refuses the address of images"),
        ("encoder execute_async_v3", "encoder.plan: failed to run: enqueueV3: Error Code 1: Cuda Runtime"),
        ("decoder execute_async_v3", "decoder.plan: failed to run: enqueueV3"),
        ("cuStreamSynchronize", "the GPU failed .cuStreamSynchronize failed: unknown error.; open it again"),
    ],
)
def test_failures_while_opening(open_: Open, call: str, says: str) -> None:
    gpu = FakeGpu()
    gpu.fail(call, 1)
    with installed(gpu), pytest.raises(EngineError, match=says) as caught:
        open_(GpuOptions())
    assert "\n" not in str(caught.value)


def test_failed_run_does_not_spoil_the_next(open_: Open, reference: OnnxSession) -> None:
    with installed(FakeGpu()) as gpu, open_(GpuOptions(steps_per_launch=1, lookahead=1, cuda_graphs=False)) as session:
        session.run(*pictures(2))
        for later in range(1, 5):
            gpu.fail("execute_async_v3", gpu.calls["execute_async_v3"] + later)
            with pytest.raises(EngineError, match="failed to run"):
                session.run(*pictures(2, seed=later))
            assert_same(session, reference, pictures(2, seed=later))


def test_fault_that_only_a_new_process_survives(open_: Open) -> None:
    with installed(FakeGpu()) as gpu, open_() as session:
        gpu.fail("cuStreamSynchronize", gpu.calls["cuStreamSynchronize"] + 1, status=ILLEGAL_ADDRESS)
        gpu.fail("cuEventSynchronize", gpu.calls["cuEventSynchronize"] + 1, status=ILLEGAL_ADDRESS)
        says = "illegal memory access was encountered.; after such a fault nothing .* start the process again"
        with pytest.raises(EngineError, match=says):
            session.run(*pictures(2))
        for attempt in (lambda: session.run(*pictures(1)), open_):
            with pytest.raises(EngineError, match="start the process again") as caught:
                attempt()
            assert "open it again" not in str(caught.value)
            assert "build it again" not in str(caught.value)


def test_bucket_that_cannot_be_made_leaves_nothing(open_: Open, reference: OnnxSession) -> None:
    with installed(FakeGpu()) as gpu, open_() as session:
        session.run(*pictures(1))
        before = gpu.left()["TensorRT objects"]
        for later in (1, 2, 3, 4):
            gpu.fail("create_execution_context", gpu.calls["create_execution_context"] + later)
            with pytest.raises(EngineError, match="no execution context"):
                session.run(*pictures(3))
            assert gpu.left()["TensorRT objects"] == before
        assert_same(session, reference, pictures(3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": np.zeros((2, 48, 160), np.uint8)}, r"given uint8 \[2, 48, 160\], not uint8 \[2, 48, 160, 3\]"),
        ({"images": np.zeros((2, 48, 160, 3), np.float32)}, "given float32"),
        ({"valid_width": np.zeros(3, np.int32)}, r"given int32 \[3\], not int32 \[2\]"),
        ({"valid_width": np.zeros(2, np.int64)}, r"given int64 \[2\], not int32 \[2\]"),
    ],
)
def test_input_that_does_not_fit(open_: Open, change: dict[str, Any], says: str) -> None:
    images, valid_width = pictures(2)
    with installed(FakeGpu()), open_() as session, pytest.raises(EngineError, match=says):
        session.run(**({"images": images, "valid_width": valid_width} | change))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (GpuOptions(steps_per_launch=5), r"steps_per_launch is 5; give a divisor of 12: \[1, 2, 3, 4, 6, 12\]"),
        (GpuOptions(buckets=(1, 9)), r"buckets are \(1, 9\), but the engine takes 1 to 5"),
        (GpuOptions(device=1), "there is no GPU 1; give a number from 0 to 0"),
    ],
)
def test_options_that_do_not_fit(open_: Open, options: GpuOptions, says: str) -> None:
    with installed(FakeGpu()), pytest.raises(EngineError, match=says):
        open_(options)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"device": -1}, "device is -1"),
        ({"buckets": ()}, "ascending batch sizes"),
        ({"buckets": (4, 2)}, "ascending batch sizes"),
        ({"buckets": (0, 2)}, "ascending batch sizes"),
        ({"steps_per_launch": 0}, "steps_per_launch is 0"),
        ({"lookahead": 2}, "lookahead is 2; give 0 or 1"),
        ({"prepared": ()}, "prepared is"),
    ],
)
def test_options_that_make_no_sense(values: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        GpuOptions(**values)


def rename(half: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(half)
    for names in [list(changed.graph.input), list(changed.graph.output)]:
        for value in names:
            value.name = new if value.name == old else value.name
    for node in changed.graph.node:
        for texts in (node.input, node.output):
            texts[:] = [new if text == old else text for text in texts]
    return changed


@pytest.mark.parametrize(
    ("index", "old", "new", "says"),
    [
        (0, "images", "pixels", "encoder.plan: has no images, only pixels, valid_width"),
        (0, "keys", "clefs", "decoder.plan: takes no clefs of float32"),
        (1, "token", "symbol", "decoder.plan: has no token"),
        (1, "going", "done", "decoder.plan: has no going"),
        (1, "h0_next", "h0_later", r"decoder.plan: gives \['c0_next'"),
    ],
)
def test_plans_of_something_else(
    open_: Open,
    bundle: Path,
    halves: tuple[onnx.ModelProto, onnx.ModelProto],
    index: int,
    old: str,
    new: str,
    says: str,
) -> None:
    name = ("encoder.plan", "decoder.plan")[index]
    (bundle / name).write_bytes(plan(rename(halves[index], old, new)))
    with installed(FakeGpu()), pytest.raises(EngineError, match=says):
        open_()


def test_host_code_runs_only_when_asked_for(
    open_: Open, bundle: Path, halves: tuple[onnx.ModelProto, onnx.ModelProto]
) -> None:
    (bundle / "encoder.plan").write_bytes(plan(halves[0], host_code=True))
    with installed(FakeGpu()), pytest.raises(EngineError, match="host code is not allowed"):
        open_()
    with installed(FakeGpu()):
        open_(GpuOptions(steps_per_launch=2, lookahead=0, host_code=True)).close()


def test_facts_of_the_host() -> None:
    with installed(FakeGpu(compute_capability=(9, 0))):
        facts = host_facts("tensorrt", 0)
    assert (facts.version, facts.compute_capability, facts.name) == ("10.3.0", "sm_90", "stand-in driver")
