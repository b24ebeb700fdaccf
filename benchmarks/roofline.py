"""How fast this machine can be at best, measured on big regular pieces of the same work, and how near an engine comes.

A word cannot take less than its arithmetic at the best rate seen here, nor less than moving its bytes; the larger of
the two is its limit. The idea is from S. Williams et al., Roofline, CACM 2009.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np

from benchmarks.workload import Workload

_CHANNELS, _HEIGHT, _WIDTH = 256, 24, 80  # of the convolution: 3 x 3, as in the middle of ResNet31
_SIDE = 1024  # of the matrices
_COPY_MIB = 128  # more than caches hold


@dataclass(frozen=True)
class Limits:
    """Best rates of this machine."""

    convolution_fp32_gflops: float
    convolution_int8_gflops: float
    gemm_fp32_gflops: float
    gemm_int8_gflops: float  # no engine of this kit multiplies matrices in 8 bits: for comparison
    copy_gbytes_s: float  # read and written together

    def word_ms(self, work: Workload) -> float:
        """The least time of one word, each kind of arithmetic at its own best rate."""
        arithmetic_s = work.int8_gflop / self.convolution_int8_gflops
        arithmetic_s += work.convolution_gflop / self.convolution_fp32_gflops
        arithmetic_s += work.product_gflop / self.gemm_fp32_gflops
        return 1e3 * max(arithmetic_s, work.mbytes / 1e3 / self.copy_gbytes_s)

    def or_better(self, other: "Limits") -> "Limits":
        """The best of both: what disturbs a machine only makes it slower."""
        return Limits(*map(max, astuple(self), astuple(other)))


def measure_limits(threads: int, *, seconds: float = 1.0) -> Limits:
    """Runs each operation for so long; its shortest run counts, as only a disturbance makes it longer."""
    convolution = 2e-9 * 9 * _CHANNELS**2 * _HEIGHT * _WIDTH
    gemm = 2e-9 * _SIDE**3
    rates = {
        "convolution_fp32_gflops": convolution / _best_s(_open(_convolution(), threads), seconds),
        "convolution_int8_gflops": convolution / _best_s(_open(_convolution_int8(), threads), seconds),
        "gemm_fp32_gflops": gemm / _best_s(_open(_gemm("MatMul", np.float32, np.float32), threads), seconds),
        "gemm_int8_gflops": gemm / _best_s(_open(_gemm("MatMulInteger", np.uint8, np.int8), threads), seconds),
        "copy_gbytes_s": 2 * _COPY_MIB * 2**20 / 1e9 / _best_s(_copy(), seconds),
    }
    return Limits(**{name: round(rate, 2) for name, rate in rates.items()})


def rate(work: Workload, limits: Limits, word_ms: float) -> dict[str, float]:
    """One engine against the machine, JSON-ready.

    Args:
        work: of one word.
        limits: of this machine.
        word_ms: what a word takes in truth.
    """
    limit_ms = limits.word_ms(work)
    figures = {**asdict(work), "limit_ms": limit_ms, "times_limit": word_ms / limit_ms}
    return {name: round(value, 4) for name, value in figures.items()}


def _best_s(run: Callable[[], object], seconds: float) -> float:
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def _copy() -> Callable[[], object]:
    source = np.ones(_COPY_MIB * 2**17)
    target = np.zeros_like(source)
    return lambda: np.copyto(target, source)


def _open(model: Any, threads: int) -> Callable[[], object]:
    import onnxruntime  # type: ignore[import-untyped]

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    kinds = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
    inputs = {i.name: rng.integers(0, 255, i.shape).astype(kinds[i.type]) for i in session.get_inputs()}
    return lambda: session.run(None, inputs)


def _convolution() -> Any:
    from onnx import helper

    weight = np.random.default_rng(1).normal(size=(_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1])
    return _model([node], {"weight": weight}, np.float32, (1, _CHANNELS, _HEIGHT, _WIDTH))


def _convolution_int8() -> Any:
    """As the kit writes it: uint8 by int8, between a dequantisation and a quantisation, which ONNX Runtime fuses."""
    from onnx import helper

    weight = np.random.default_rng(1).integers(-127, 127, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.int8)
    constants = {"weight": weight, "step": np.float32(0.01), "zero": np.uint8(128), "zero_weight": np.int8(0)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "step", "zero"], ["pixels"]),
        helper.make_node("DequantizeLinear", ["weight", "step", "zero_weight"], ["kernel"]),
        helper.make_node("Conv", ["pixels", "kernel"], ["sum"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["sum", "step", "zero"], ["y"]),
    ]
    return _model(nodes, constants, np.uint8, (1, _CHANNELS, _HEIGHT, _WIDTH))


def _gemm(kind: str, left: type, right: type) -> Any:
    from onnx import helper

    matrix: Any = np.random.default_rng(1).integers(-127, 127, (_SIDE, _SIDE)).astype(right)
    return _model([helper.make_node(kind, ["x", "matrix"], ["y"])], {"matrix": matrix}, left, (_SIDE, _SIDE))


def _model(nodes: list[Any], constants: dict[str, Any], kind: type, shape: tuple[int, ...]) -> Any:
    from onnx import helper, numpy_helper

    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    given = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
    result_type = {"MatMulInteger": np.dtype(np.int32)}.get(nodes[-1].op_type, np.dtype(kind))
    result = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(result_type), None)
    graph = helper.make_graph(nodes, "piece", [given], [result], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
