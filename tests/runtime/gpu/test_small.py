"""The shipped `small` in the TensorRT session, on the stand-in driver: CTC's say, and canvases as wide as their word.

`STANDIN_CROPS=200 pytest tests/runtime/gpu/test_small.py` reads that many crops.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from fake_gpu import FakeGpu, installed, plan
from onnx import numpy_helper
from test_kernel_decoder import teach

from convert.engine.trt.attention import fuse_attention
from convert.engine.trt.extent import open_shapes
from convert.engine.trt.kernel_weights import decode_weights
from convert.graph.split import split
from robustscanner import Recognizer
from robustscanner.gpu.kernels import pack_weights
from robustscanner.gpu.tensorrt_session import TensorRTSession
from robustscanner.onnx_session import OnnxSession
from robustscanner.preprocess import load_image, make_batch, same_width
from robustscanner.session import GpuOptions, Images, Session, SessionOptions, Tokens, Widths
from robustscanner.spec import InputSpec

ROOT = Path(__file__).parents[3]
SMALL = ROOT / "runtime" / "robustscanner" / "models" / "small.onnx"
CROPS = int(os.environ.get("STANDIN_CROPS", "12"))
BATCH = 4


@pytest.fixture(scope="module")
def reference() -> Iterator[OnnxSession]:
    with OnnxSession(SMALL, SessionOptions(threads=1)) as session:
        yield session


@pytest.fixture(scope="module")
def crops(reference: OnnxSession) -> tuple[Images, Widths]:
    """Spread over the folder; and one of them from the narrowest to the canvas."""
    paths, size = sorted((ROOT / "calib_data" / "images").glob("*.jpg")), reference.spec.input
    images = [load_image(path) for path in paths[:: len(paths) // CROPS][:CROPS]]
    widths_px = np.linspace(size.min_width_px, size.width_px, 5).astype(int)
    images += [cv2.resize(images[0], (int(width), size.height_px)) for width in widths_px]
    found = make_batch(images, size)
    assert {size.min_width_px, size.width_px} <= set(found[1].tolist())
    return found


@pytest.fixture(scope="module")
def bundle(reference: OnnxSession, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both plans as `convert/engine/trt` writes them, and the kernel's files."""
    model, folder = onnx.load(SMALL), tmp_path_factory.mktemp("small")
    encoder, decoder = fuse_attention(*split(model, reference.spec))
    shapes = open_shapes(encoder, decoder, reference.spec.input.canvas_widths)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    contents = {
        "encoder.plan": plan(encoder, largest=BATCH, shapes=shapes),
        "decoder.plan": plan(decoder, largest=BATCH, shapes=shapes),
        "decoder.fatbin": b"compiled",
        "decoder.weights": pack_weights(decode_weights(weights, np.float32), reference.spec),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in contents]


def read(session: Session, crops: tuple[Images, Widths], size: InputSpec) -> Tokens:
    """In batches of canvases of one width."""
    images, widths = crops
    tokens = np.empty((len(images), session.spec.network.max_length), np.int32)
    for rows, wide in same_width(widths.tolist(), size):
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            tokens[part] = session.run(np.ascontiguousarray(images[part, :, :wide]), widths[part])[0]
    return tokens


@pytest.mark.parametrize("decoder", ["steps", "kernel"])
def test_letters_are_those_of_onnx_runtime(reference: OnnxSession, bundle: list[Path], decoder: str) -> None:
    gpu_options = GpuOptions(prepared=(1,), decoder=decoder, steps_per_launch=2, lookahead=1)
    options = SessionOptions(threads=1, gpu=gpu_options)
    paths = sorted((ROOT / "calib_data" / "images").glob("*.jpg"))[:40:10]
    with installed(FakeGpu()) as gpu:
        teach(gpu)
        session = TensorRTSession(bundle[:2], reference.spec, backend="tensorrt", options=options, kernels=bundle[2:])
        with session, Recognizer.over(session, batch_size=4) as ours, Recognizer(SMALL) as theirs:
            for path in paths:
                text = theirs.read(path).text
                for found, expected in zip(ours.letters(path, text), theirs.letters(path, text), strict=True):
                    assert found.text == expected.text
                    assert found.probability == pytest.approx(expected.probability, abs=2e-3)
                    assert [other for other, _ in found.others] == [other for other, _ in expected.others]
                    assert [chance for _, chance in found.others] == pytest.approx(
                        [chance for _, chance in expected.others], abs=2e-3
                    )
                    places = (found.left, found.centre, found.right), (expected.left, expected.centre, expected.right)
                    assert places[0] == pytest.approx(places[1], abs=0.1)


@pytest.mark.parametrize("decoder", ["steps", "kernel"])
def test_reads_what_onnx_runtime_reads(
    reference: OnnxSession, crops: tuple[Images, Widths], bundle: list[Path], decoder: str
) -> None:
    gpu_options = GpuOptions(prepared=(1,), decoder=decoder, steps_per_launch=2, lookahead=0)
    expected = read(reference, crops, reference.spec.input)
    with installed(FakeGpu()) as gpu:
        teach(gpu)
        with TensorRTSession(
            bundle[:2],
            reference.spec,
            backend="tensorrt",
            options=SessionOptions(threads=1, gpu=gpu_options),
            kernels=bundle[2:],
        ) as session:
            found = read(session, crops, reference.spec.input)
    print(f"{decoder}: {(found == expected).all(1).sum()} of {len(found)} crops alike")
    assert found.tolist() == expected.tolist()
