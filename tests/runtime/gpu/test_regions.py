"""Words of a picture that lies on the GPU: drawn as the host draws them, and read without a copy."""

import ctypes
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from fake_gpu import FakeGpu, installed, plan

from convert.graph.split import split
from robustscanner.constraint import Constraint
from robustscanner.errors import EngineError, ImageError
from robustscanner.gpu.crops import _capsule_address, _DLTensor
from robustscanner.gpu.tensorrt_session import TensorRTSession
from robustscanner.onnx_session import OnnxSession
from robustscanner.preprocess import make_batch
from robustscanner.recognizer import Recognizer
from robustscanner.regions import WORD, describe
from robustscanner.session import GpuOptions, SessionOptions
from robustscanner.spec import InputSpec
from robustscanner.words import WordList
from tests.cuda_driver.driver import OFFSET

ROOT = Path(__file__).parents[3]
TINY = ROOT / "tests" / "tiny" / "tiny.onnx"
SOURCE = ROOT / "runtime" / "cuda" / "resize.cu"
SIZES = (8, 8, 8, 8, 4, 4, 8, 4, 8, 8, 4, 4, 4)  # bytes of the kernel's parameters
HEIGHT, WIDTH = 300, 500
BOXES = [
    (0, 0, 500, 300),
    (10, 20, 100, 48),
    (13, 7, 60, 20),
    (100, 100, 96, 96),
    (50, 60, 333, 40),
    (5, 5, 160, 48),
    (7, 9, 320, 96),
    (3, 3, 10, 200),
    (40, 40, 7, 5),
    (499, 299, 1, 1),
    (20, 30, 200, 47),
    (20, 30, 30, 90),
]
QUADS = [
    [(30, 40), (230, 60), (225, 110), (28, 90)],
    [(300, 20), (340, 30), (330, 250), (290, 240)],
    [(100.5, 200.25), (180, 190), (185, 215), (99, 230)],
]

Opened = tuple[TensorRTSession, FakeGpu]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The source of the GPU's kernel, for the CPU; device addresses are as the stand-in has them."""
    library = tmp_path_factory.mktemp("kernel") / "resize.so"
    flags = ["-x", "c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["g++", *flags, f"-DRS_DEVICE_OFFSET={OFFSET}ull", "-o", library, SOURCE], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (5, 5), 0))


def drawn(kernel: ctypes.CDLL, picture: np.ndarray, words: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Canvases; one more than words repeats the last."""
    canvases = np.full((len(words) + 1, spec.height_px, spec.width_px, 3), 7, np.uint8)
    widths = np.zeros(len(canvases), np.int32)
    shape = (ctypes.c_uint * 7)(-(-spec.width_px // 32), -(-spec.height_px // 8), len(canvases), 32, 8, 1, 0)
    where = picture.ctypes.data + OFFSET, *picture.strides, *picture.shape[:2]
    targets = words.ctypes.data + OFFSET, len(words), canvases.ctypes.data + OFFSET, widths.ctypes.data + OFFSET
    values = *where, *targets, spec.height_px, spec.width_px, int(spec.resize == "area")
    kernel.robustscanner_resize(shape, (ctypes.c_uint64 * len(values))(*(value % (1 << 64) for value in values)))
    assert widths.tolist() == [*words["valid"], words["valid"][-1]]
    np.testing.assert_array_equal(canvases[-1], canvases[-2])
    return canvases[:-1]


@pytest.mark.parametrize("resize", ["linear", "area"])
def test_boxes_are_drawn_as_on_the_host(kernel: ctypes.CDLL, picture: np.ndarray, resize: str) -> None:
    spec = InputSpec(resize=resize)
    words = describe(BOXES, HEIGHT, WIDTH, spec)
    expected, widths = make_batch([picture[y : y + h, x : x + w] for x, y, w, h in BOXES], spec)
    assert words["valid"].tolist() == widths.tolist()
    got = drawn(kernel, picture, words, spec)
    assert np.abs(got.astype(int) - expected).max() <= 1
    turned = np.ascontiguousarray(picture[::-1])[::-1]  # the same picture, rows from the last to the first in memory
    np.testing.assert_array_equal(drawn(kernel, turned, words, spec), got)


@pytest.mark.parametrize("resize", ["linear", "area"])
def test_quadrilaterals_are_made_upright_first(kernel: ctypes.CDLL, picture: np.ndarray, resize: str) -> None:
    spec = InputSpec(resize=resize)
    words = describe(QUADS, HEIGHT, WIDTH, spec)
    upright = []
    for word in words:
        rows, columns = np.mgrid[: word["height"], : word["width"]].astype(np.float64)
        x, y, w = np.tensordot(word["matrix"].reshape(3, 3), np.stack([columns, rows, np.ones_like(rows)]), 1)
        upright.append(between(picture, x / w, y / w))
    expected, _ = make_batch(upright, spec)
    assert np.abs(drawn(kernel, picture, words, spec).astype(int) - expected).max() <= 2  # the host rounds twice
    np.testing.assert_allclose(words["matrix"][0].reshape(3, 3) @ (0, 0, 1), (30, 40, 1), atol=1e-9)


def between(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pixels at places between others."""
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, down = (x - left)[..., None], (y - top)[..., None]

    def at(i: int, j: int) -> np.ndarray:
        return picture[np.clip(top + j, 0, HEIGHT - 1), np.clip(left + i, 0, WIDTH - 1)].astype(float)

    above, below = (at(0, j) * (1 - right) + at(1, j) * right for j in (0, 1))
    return np.asarray(np.round(above * (1 - down) + below * down), np.uint8)


@pytest.mark.parametrize(
    ("region", "says"),
    [
        ((10, 10, 0, 5), r"region 0: \(10, 10, 0, 5\) is empty, or not within 500 x 300 pixels"),
        ((490, 10, 20, 5), "not within 500 x 300"),
        ((-1, 10, 20, 5), "not within 500 x 300"),
        ((1, 2, 3), r"has shape \[3\]; expected"),
        ([(0, 0), (0, 0), (0, 0), (0, 0)], "its four points span no area"),
    ],
)
def test_regions_that_are_none(region: Any, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        describe([region], HEIGHT, WIDTH, InputSpec())


class OnGpu:
    """A picture in device memory, as PyTorch or CuPy have it; a context is current."""

    def __init__(self, picture: np.ndarray, stream: int | None = None, **changed: Any) -> None:
        import pycuda.driver as drv  # type: ignore[import-untyped]

        self.memory = drv.mem_alloc(picture.nbytes)
        drv.memcpy_htod(self.memory, picture)
        drv.Context.synchronize()
        facts = {"data": (int(self.memory), True), "shape": picture.shape, "typestr": "|u1", "stream": stream}
        self.__cuda_array_interface__ = {**facts, "strides": None, "version": 3, **changed}


@pytest.fixture
def opened(kernel: ctypes.CDLL, tmp_path: Path) -> Iterator[Opened]:
    with OnnxSession(TINY, SessionOptions(threads=1)) as reference:
        spec = reference.spec
    paths = [tmp_path / "encoder.plan", tmp_path / "decoder.plan"]
    for path, half in zip(paths, split(onnx.load(TINY), spec), strict=True):
        path.write_bytes(plan(half, largest=4))
    options = SessionOptions(threads=1, gpu=GpuOptions(prepared=(1,), steps_per_launch=2, lookahead=1))
    with installed(FakeGpu()) as gpu:
        gpu.driver.add_kernel("robustscanner_resize", kernel.robustscanner_resize, SIZES)
        with TensorRTSession(paths, spec, backend="tensorrt", options=options) as session:
            yield session, gpu


def test_reads_what_the_host_reads(opened: Opened, picture: np.ndarray) -> None:
    session, gpu = opened
    boxes = [BOXES[number] for number in (1, 3, 4, 6, 8)]  # more than fit into one run
    canvases, widths = make_batch([picture[y : y + h, x : x + w] for x, y, w, h in boxes], session.spec.input)
    expected, _ = session.run(canvases, widths)
    with session._gpu.current():
        on_gpu = OnGpu(picture)
        before = gpu.calls
        for _ in range(2):
            tokens, scores = session.run_regions(on_gpu, boxes)
            np.testing.assert_array_equal(tokens, expected)
            assert (scores > 0).all()
        assert session.run_regions(on_gpu, [])[0].shape == (0, 12)
        tokens, _ = session.run(canvases, widths)  # from the host again
        np.testing.assert_array_equal(tokens, expected)
        calls = gpu.calls - before
        assert calls["cuLaunchKernel"] == 4
        assert calls["cuMemcpyHtoD"] == 0
        on_gpu.memory.free()


def test_reads_what_is_allowed(opened: Opened, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = opened
    monkeypatch.setattr("robustscanner.recognizer.open_engine", lambda *_: session)
    kinds, boxes = [Constraint(pattern=r"[A-Z]{2}\d{2}|(ab|ba)+", length=(4, 8)), WordList(["cat", "dog"])], BOXES[1:6]
    recognizer = Recognizer(TINY)
    with session._gpu.current():
        on_gpu = OnGpu(picture)
        found = [recognizer.read_regions(on_gpu, boxes, constraint=kind) for kind in kinds]
        session._gpu.stream.synchronize()  # steps of words that have ended may still run
        on_gpu.memory.free()
    for readings, kind in zip(found, kinds, strict=True):
        expected = recognizer.read_regions(picture, boxes, constraint=kind)
        assert [reading.text for reading in readings] == [reading.text for reading in expected]
    assert all(re.fullmatch(r"[A-Z]{2}\d{2}|(ab|ba)+", reading.text) for reading in found[0])


@pytest.mark.parametrize("named", [False, True])
def test_waits_for_the_stream_that_fills_the_picture(opened: Opened, picture: np.ndarray, named: bool) -> None:
    session, _ = opened
    with session._gpu.current():
        import pycuda.driver as drv  # type: ignore[import-untyped]

        full, empty = OnGpu(picture), OnGpu(np.zeros_like(picture))
        expected, _ = session.run_regions(full, BOXES[1:3])
        stream, staged = drv.Stream(1), drv.pagelocked_empty(picture.shape, np.uint8)
        staged[:] = picture
        drv.memcpy_htod_async(empty.memory, staged, stream)  # runs when somebody waits
        if named:
            empty.__cuda_array_interface__["stream"] = stream.handle
        tokens, _ = session.run_regions(empty, BOXES[1:3], stream=None if named else stream.handle)
        np.testing.assert_array_equal(tokens, expected)
        for memory in (full.memory, empty.memory, staged.base):
            memory.free()
        del stream


class OfPyTorch:
    """What PyTorch itself says of a tensor in DLPack, but for where it lies: a PyTorch for CPUs has no GPU."""

    def __init__(self, tensor: Any, memory: Any) -> None:
        self._tensor, self._memory = tensor, memory

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0  # kDLCUDA

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert stream  # the session's, which is to wait
        capsule = self._tensor.__dlpack__()
        _DLTensor.from_address(_capsule_address(capsule)).data = int(self._memory)
        return capsule


def test_reads_tensors_of_pytorch(opened: Opened, picture: np.ndarray) -> None:
    """A real capsule, its shape, strides, type and offset: of the whole, of a part, and of channels that lie apart."""
    torch = pytest.importorskip("torch")
    session, _ = opened
    apart = np.ascontiguousarray(picture.transpose(2, 0, 1))
    with session._gpu.current():
        for stored, seen in ((picture, lambda t: t[20:, 30:]), (apart, lambda t: t.permute(1, 2, 0))):
            on_gpu, tensor = OnGpu(stored), torch.from_numpy(stored.copy())
            view = seen(tensor)
            canvases, widths = make_batch([view.numpy()[7:27, 13:73]], session.spec.input)
            expected, _ = session.run(canvases, widths)
            address = int(on_gpu.memory) + view.data_ptr() - tensor.data_ptr()
            tokens, _ = session.run_regions(OfPyTorch(view, address), [(13, 7, 60, 20)])
            np.testing.assert_array_equal(tokens, expected)
            session._gpu.stream.synchronize()
            on_gpu.memory.free()
        with pytest.raises(ImageError, match="not uint8"):
            session.run_regions(OfPyTorch(tensor.float(), 4096), BOXES)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"typestr": "<f4"}, "picture on the GPU is <f4; expected uint8"),
        ({"shape": (300, 500)}, r"has shape \[300, 500\]; expected \[H, W, 3\]"),
    ],
)
def test_pictures_that_are_none(opened: Opened, picture: np.ndarray, changed: dict[str, Any], says: str) -> None:
    session, _ = opened
    with session._gpu.current():
        on_gpu = OnGpu(picture, **changed)
        with pytest.raises(ImageError, match=says):
            session.run_regions(on_gpu, BOXES)
        on_gpu.memory.free()


def test_pictures_of_the_host(opened: Opened, picture: np.ndarray) -> None:
    with pytest.raises(ImageError, match="picture does not lie on a GPU"):
        opened[0].run_regions(picture, BOXES)  # NumPy speaks DLPack
    with pytest.raises(ImageError, match="picture is list; expected an array on a GPU"):
        opened[0].run_regions(picture.tolist(), BOXES)


def test_other_engines_say_so() -> None:
    on_gpu = SimpleNamespace(__cuda_array_interface__={})
    with Recognizer(TINY) as recognizer, pytest.raises(EngineError, match="only a TensorRT engine reads from a GPU"):
        recognizer.read_regions(on_gpu, BOXES)


def test_words_are_as_the_kernel_reads_them() -> None:
    assert WORD.itemsize == 88
