"""What a word asks of a machine: the arithmetic and the bytes of an ONNX graph, counted while it runs."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustscanner.engine import ONNX_NAME
from robustscanner.preprocess import decode_image, make_batch
from robustscanner.spec import SPEC_KEY, ModelSpec

Shape = Sequence[int]
Count = Callable[[Sequence[Shape], Sequence[Shape]], int]  # shapes in and out of a node -> floating point operations


@dataclass(frozen=True)
class Workload:
    """Of one word, averaged over the pictures it was counted with; a multiplication and an addition are two."""

    int8_gflop: float  # convolutions and LSTMs
    convolution_gflop: float  # in FP32
    product_gflop: float  # of matrices, LSTMs in FP32 included
    mbytes: float  # weights and pixels, each once: what has to be moved even if the caches held all else


def find_graph(path: Path) -> Path | None:
    """The ONNX file of an engine; None for TensorRT's plans, whose arithmetic cannot be seen from outside."""
    graph = path / ONNX_NAME if path.is_dir() else path
    return graph if graph.is_file() else None


def count_work(graph: Path, pictures: Sequence[bytes]) -> Workload:
    """Runs the graph as it is written, unfused, and adds up what each node did, as often as it ran."""
    import onnx

    model = onnx.load(graph)
    spec = ModelSpec.from_json(next(entry.value for entry in model.metadata_props if entry.key == SPEC_KEY))
    quantised = _quantised_nodes(model.graph)
    flops = {"int8": 0, "convolution": 0, "product": 0}
    for name, kind, operations in _profile(graph, [make_batch([decode_image(data)], spec.input) for data in pictures]):
        in_8_bits = name in quantised or kind == _INT8_LSTM
        flops["int8" if in_8_bits else "convolution" if kind == "Conv" else "product"] += operations
    int8, convolution, product = (operations / 1e9 / len(pictures) for operations in flops.values())
    weights = sum(math.prod(tensor.dims) * _item_bytes(tensor.data_type) for tensor in model.graph.initializer)
    pixels = spec.input.height_px * spec.input.width_px * 3
    return Workload(int8, convolution, product, (weights + pixels) / 1e6)


def _profile(graph: Path, inputs: Sequence[tuple[Any, Any]]) -> Iterator[tuple[str, str, int]]:
    """Each node that ran and did arithmetic: its name, its kind, and how much."""
    import onnxruntime  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # or names are lost
        settings.enable_profiling, settings.profile_file_prefix = True, f"{folder}/profile"
        session = onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
        for images, widths in inputs:
            session.run(None, {"images": images, "valid_width": widths})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    for event in events:
        facts: Mapping[str, Any] = event.get("args", {})
        if event["name"].endswith("_kernel_time") and facts.get("op_name") in _COUNTS:
            shapes = [[next(iter(e.values())) for e in facts[f"{way}_type_shape"]] for way in ("input", "output")]
            kind = facts["op_name"]
            yield event["name"].removesuffix("_kernel_time"), kind, _COUNTS[kind](*shapes)


def _convolution(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 2 * math.prod(outputs[0]) * math.prod(inputs[1][1:])


def _product(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 2 * math.prod(outputs[0]) * inputs[0][-1]


def _lstm(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """X (L, N, I) to Y (L, directions, N, D): four gates of I + D products each; the rest is negligible."""
    return 2 * math.prod(outputs[0]) * 4 * (inputs[0][-1] + outputs[0][-1])


_INT8_LSTM = "DynamicQuantizeLSTM"  # ONNX Runtime's own
_COUNTS: dict[str, Count] = {
    "Conv": _convolution,
    "MatMul": _product,
    "Gemm": _product,
    "LSTM": _lstm,
    _INT8_LSTM: _lstm,
}


def _quantised_nodes(graph: Any) -> set[str]:
    """Convolutions whose weights come in 8 bits."""
    made = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.name for node in graph.node if node.op_type == "Conv" and {*node.input[:2]} <= made}


def _item_bytes(kind: int) -> int:
    from onnx import helper

    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
