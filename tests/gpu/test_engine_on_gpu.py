"""Real engines on a real GPU: they read what ONNX Runtime reads, share the GPU, and leave nothing behind."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from robustscanner import Recognizer
from robustscanner.engine import open_engine
from robustscanner.errors import EngineError
from robustscanner.gpu.device import primary_context
from robustscanner.labels import LabelledCrop
from robustscanner.metrics import score_words
from robustscanner.recognizer import Reading
from robustscanner.session import GpuOptions, Session, SessionOptions

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny" / "tiny.onnx"
EDGE = ROOT / "runtime" / "robustscanner" / "models" / "edge.onnx"
MAX_BATCH = 16
CALLS = 10_000
GROWTH_MIB = 32  # of ten thousand calls: allocators keep some, a leak of one buffer a call is far more

Build = Callable[..., Path]
Canvases = Callable[[int], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def expected(crops: Sequence[LabelledCrop]) -> list[Reading]:
    """What ONNX Runtime reads in the crops."""
    with Recognizer(EDGE) as recognizer:
        return recognizer.read_batch([crop.path for crop in crops])


@pytest.fixture
def tiny(build: Build) -> Iterator[Session]:
    session = open_engine(build(TINY, "fp32"), SessionOptions())
    yield session
    session.close()


@pytest.fixture(scope="module")
def reference() -> Iterator[Session]:
    session = open_engine(TINY, SessionOptions(threads=2))
    yield session
    session.close()


def read(engine: Path, crops: Sequence[LabelledCrop], gpu: GpuOptions = GpuOptions()) -> list[Reading]:
    with Recognizer(engine, batch_size=MAX_BATCH, options=SessionOptions(gpu=gpu)) as recognizer:
        return recognizer.read_batch([crop.path for crop in crops])


def assert_same(session: Session, reference: Session, given: tuple[np.ndarray, np.ndarray]) -> None:
    tokens, scores = session.run(*given)
    expected_tokens, expected_scores = reference.run(*given)
    np.testing.assert_array_equal(tokens, expected_tokens)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-2)  # TF32 rounds to 10 bits


def test_fp32_equals_onnxruntime(build: Build, crops: Sequence[LabelledCrop], expected: Sequence[Reading]) -> None:
    got = read(build(EDGE, "fp32"), crops)
    assert [reading.text for reading in got] == [reading.text for reading in expected]
    np.testing.assert_allclose([r.score for r in got], [r.score for r in expected], atol=2e-2)


@pytest.mark.parametrize(("precision", "loss"), [("fp16", 0.01), ("int8", 0.03)])
def test_accuracy_stays(
    build: Build, crops: Sequence[LabelledCrop], expected: Sequence[Reading], precision: str, loss: float
) -> None:
    labels = [crop.label for crop in crops]
    got = score_words([reading.text for reading in read(build(EDGE, precision), crops)], labels)
    assert got.rate >= score_words([reading.text for reading in expected], labels).rate - loss


def test_every_batch_size(tiny: Session, reference: Session, canvases: Canvases) -> None:
    for count in (*range(1, MAX_BATCH + 1), 2 * MAX_BATCH + 3):
        assert_same(tiny, reference, canvases(count))


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("steps_per_launch", [1, 3, 4, 12])
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_every_schedule(
    build: Build, reference: Session, canvases: Canvases, steps_per_launch: int, lookahead: int, cuda_graphs: bool
) -> None:
    gpu = GpuOptions(steps_per_launch=steps_per_launch, lookahead=lookahead, cuda_graphs=cuda_graphs)
    session = open_engine(build(TINY, "fp32"), SessionOptions(gpu=gpu))
    for count in (1, 3, 16, 1):
        assert_same(session, reference, canvases(count))
    session.close()


def test_threads_share_a_session(tiny: Session, reference: Session, canvases: Canvases) -> None:
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for count in range(1, 20):
                assert_same(tiny, reference, canvases(1 + (count + seed) % 9))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_engines_at_once(
    build: Build, tiny: Session, reference: Session, canvases: Canvases, crops: Sequence[LabelledCrop]
) -> None:
    with Recognizer(build(EDGE, "fp32")) as other:
        before = [other.read(crop.path).text for crop in crops[:10]]
        for count in (1, 5):
            assert_same(tiny, reference, canvases(count))
            assert [other.read(crop.path).text for crop in crops[:10]] == before
    assert_same(tiny, reference, canvases(3))


def test_torch_in_the_same_process(tiny: Session, reference: Session, canvases: Canvases) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    matrix = torch.eye(64, device="cuda")
    for count in (1, 4):
        assert_same(tiny, reference, canvases(count))
        matrix = matrix @ (2 * torch.eye(64, device="cuda"))
    tiny.close()
    assert float((matrix @ matrix).diagonal().sum()) == 64 * 16


def test_nothing_grows(tiny: Session, canvases: Canvases) -> None:
    given = [canvases(count) for count in (1, 2, 3, 8, 16)]
    for pictures in given:
        tiny.run(*pictures)
    before = used_mib()
    for call in range(CALLS):
        tiny.run(*given[call % len(given)])
    assert used_mib() - before < GROWTH_MIB


def test_opening_and_closing_leaves_nothing(build: Build, canvases: Canvases) -> None:
    engine = build(TINY, "fp32")

    def open_and_read() -> None:
        session = open_engine(engine, SessionOptions())
        session.run(*canvases(3))
        session.close()

    open_and_read()
    before = used_mib()
    for _ in range(20):
        open_and_read()
    assert used_mib() - before < GROWTH_MIB


def used_mib() -> float:
    """Memory of this process and of the GPU; others on the same GPU disturb it."""
    import pycuda.driver as drv  # type: ignore[import-untyped]

    primary_context(drv, 0).push()
    free, total = drv.mem_get_info()
    drv.Context.pop()
    return (total - free) / (1 << 20) + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_process_killed_half_way(build: Build, reference: Session, canvases: Canvases) -> None:
    engine = build(TINY, "fp32")
    code = f"""
        import numpy as np
        from robustscanner.engine import open_engine
        from robustscanner.session import SessionOptions
        session = open_engine({str(engine)!r}, SessionOptions())
        images, widths = np.zeros((16, 48, 160, 3), np.uint8), np.full(16, 160, np.int32)
        print("open", flush=True)
        while True:
            session.run(images, widths)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    session = open_engine(engine, SessionOptions())
    assert_same(session, reference, canvases(4))
    session.close()


def test_process_ends_without_closing(build: Build) -> None:
    code = f"""
        from robustscanner.engine import open_engine
        from robustscanner.session import SessionOptions
        session = open_engine({str(build(TINY, "fp32"))!r}, SessionOptions())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT / 'runtime'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def test_damaged_plan_with_manifest_in_order(build: Build, tmp_path: Path) -> None:
    """TensorRT itself is asked, and gives no exception but None."""
    broken = tmp_path / "broken.engine"
    shutil.copytree(build(TINY, "fp32"), broken)
    data = (broken / "encoder.plan").read_bytes()[:-1000]
    (broken / "encoder.plan").write_bytes(data)
    manifest = json.loads((broken / "engine.json").read_text(encoding="utf-8"))
    manifest["files"]["encoder.plan"] = hashlib.sha256(data).hexdigest()
    (broken / "engine.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(EngineError, match=r"encoder.plan: TensorRT\S* \S+ cannot open it on sm_\d+: "):
        open_engine(broken, SessionOptions())


def test_gpu_that_is_not_there(build: Build) -> None:
    with pytest.raises(EngineError, match="there is no GPU 99; give a number from 0 to"):
        open_engine(build(TINY, "fp32"), SessionOptions(gpu=GpuOptions(device=99)))
