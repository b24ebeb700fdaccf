"""What people use today, opened from their wheels and asked for the same as we are: one crop in, its text out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.reader import Reader
from robustscanner.charset import Charset
from robustscanner.engine import default_engine, open_engine
from robustscanner.errors import RobustScannerError
from robustscanner.preprocess import decode_image, make_batch
from robustscanner.session import SessionOptions

EAGER_WORDS = 200  # of each set; at some tenth of a second each, that is enough to see that it reads the same

Run = Callable[[Any, Any], tuple[Any, Any]]  # canvases and valid widths -> tokens and scores, (N, T) each


class PeerError(RobustScannerError):
    """A peer that cannot be opened."""


@dataclass(frozen=True)
class Peer:
    """How to come by one."""

    title: str
    wheel: str  # that it needs
    open: Callable[[int], Reader]  # with a number of threads


def open_peer(name: str, threads: int) -> Reader:
    """One of PEERS, with `threads` threads.

    Raises:
        PeerError: its wheel is not installed, or does not run here.
    """
    peer = PEERS[name]
    try:
        return peer.open(threads)
    except ImportError as error:
        raise PeerError(f"{name} needs {peer.wheel} ({error}); pip install -e '.[bench,peers]'") from None
    except Exception as error:  # other people's code: anything may be raised
        raise PeerError(f"{name}: {peer.wheel} cannot be opened ({error}); try another version of it") from None


def open_rapidocr(threads: int) -> Any:
    """RapidOCR with its own models, each with `threads` threads; raises ImportError."""
    from rapidocr import RapidOCR

    engine = "EngineConfig.onnxruntime."
    settings = {f"{engine}intra_op_num_threads": threads, f"{engine}inter_op_num_threads": 1}
    return RapidOCR(params={**settings, "Global.log_level": "error"})


def _open_ppocrv6(threads: int) -> Reader:
    """The recogniser alone: the pipeline around it would look for words and turn pictures first."""
    from rapidocr.ch_ppocr_rec import TextRecInput

    recogniser = open_rapidocr(threads)._load_rec_model()

    def read(pictures: Sequence[bytes]) -> list[str]:
        return [str(text) for text in recogniser(TextRecInput(img=_decode_bgr(pictures))).txts]

    return Reader(PEERS["ppocrv6"].title, read, {"wheel": f"rapidocr {version('rapidocr')}"})


def _open_ppocrv4(threads: int) -> Reader:
    from rapidocr_onnxruntime import RapidOCR  # type: ignore[import-untyped]

    recogniser = RapidOCR(intra_op_num_threads=threads, inter_op_num_threads=1).text_rec

    def read(pictures: Sequence[bytes]) -> list[str]:
        return [str(text) for text, *_ in recogniser(_decode_bgr(pictures))[0]]

    return Reader(PEERS["ppocrv4"].title, read, {"wheel": f"rapidocr-onnxruntime {version('rapidocr-onnxruntime')}"})


def _open_openvino(threads: int) -> Reader:
    """Our FP32 graph in Intel's runtime, which itself takes bfloat16 where the CPU multiplies it."""
    import openvino  # type: ignore[import-untyped]

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(str(default_engine()), "CPU", settings)
    precision = str(model.get_property("INFERENCE_PRECISION_HINT")).strip("<>").split("'")[1]
    facts: dict[str, object] = {"wheel": f"openvino {openvino.__version__.split('-')[0]}", "precision": precision}

    def run(images: Any, widths: Any) -> tuple[Any, Any]:
        found = model({"images": images, "valid_width": widths})
        return found[0], found[1]

    return Reader(PEERS["openvino"].title, _reading_canvases(default_engine(), run), facts)


def _open_eager(threads: int) -> Reader:
    """The weights of `edge` as PaddleOCR decodes them, in PyTorch."""
    from benchmarks.eager import open_eager

    model = default_engine().with_name("edge.onnx")
    facts: dict[str, object] = {"wheel": f"torch {version('torch')}", "precision": "fp32"}
    read = _reading_canvases(model, open_eager(model.with_suffix(".safetensors"), threads))
    return Reader(PEERS["eager"].title, read, facts, most_words=EAGER_WORDS)


def _reading_canvases(
    model: Path, run: Callable[[Any, Any], tuple[Any, Any]]
) -> Callable[[Sequence[bytes]], list[str]]:
    """Pictures to texts around something that takes our model's canvases and gives its tokens."""
    session = open_engine(model, SessionOptions(threads=1, spinning=False))
    spec = session.spec
    session.close()
    charset = Charset(spec.charset)

    def read(pictures: Sequence[bytes]) -> list[str]:
        tokens, scores = run(*make_batch([decode_image(data) for data in pictures], spec.input))
        return [charset.decode(*row)[0] for row in zip(tokens, scores, strict=True)]

    return read


def _decode_bgr(pictures: Sequence[bytes]) -> list[Any]:
    """As these wheels want them."""
    return [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in pictures]


PEERS = {
    "ppocrv6": Peer("PP-OCRv6 small", "rapidocr", _open_ppocrv6),
    "ppocrv4": Peer("PP-OCRv4 mobile", "rapidocr-onnxruntime", _open_ppocrv4),
    "openvino": Peer("edge in OpenVINO", "openvino", _open_openvino),
    "eager": Peer("edge in PyTorch, eager", "torch", _open_eager),
}
