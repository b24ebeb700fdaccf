"""Arithmetic counted in graphs, and a machine's limit for it."""

import math
from dataclasses import astuple
from pathlib import Path

import onnx
import pytest
from onnx import shape_inference

from benchmarks.roofline import Limits, measure_limits, rate
from benchmarks.sample import draw_crops, load_bytes
from benchmarks.workload import Workload, count_work, find_graph

from .conftest import TINY

LIMITS = Limits(100, 400, 200, 800, 10)


def convolution_gflop() -> float:
    """By shape inference instead of a run."""
    model = onnx.load(TINY)
    stored = {tensor.name for tensor in model.graph.initializer}  # inputs with a value of their own keep its shape
    for value in model.graph.input:
        if value.name not in stored:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = shape_inference.infer_shapes(model)
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.graph.value_info}
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert all(math.prod(sizes[node.output[0]]) for node in convolutions)
    return sum(2e-9 * math.prod(sizes[n.output[0]]) * math.prod(weights[n.input[1]][1:]) for n in convolutions)


def test_counts_what_shapes_say(crops: Path) -> None:
    work = count_work(TINY, load_bytes(draw_crops(crops, 2)))
    assert work.int8_gflop == 0
    assert work.convolution_gflop == pytest.approx(convolution_gflop())
    assert work.mbytes == pytest.approx(TINY.stat().st_size / 1e6, rel=0.6)


def test_eight_bits_do_the_same_work_elsewhere_or_less(crops: Path, int8_engine: Path) -> None:
    pictures = load_bytes(draw_crops(crops, 2))
    graph = find_graph(int8_engine)
    assert graph is not None
    before, after = count_work(TINY, pictures), count_work(graph, pictures)
    assert 0 < after.convolution_gflop < before.convolution_gflop
    assert 0 < after.int8_gflop <= before.convolution_gflop + before.product_gflop
    assert sum(astuple(after)[:3]) < 1.001 * sum(astuple(before)[:3])


def test_longer_words_are_more_work(crops: Path) -> None:
    from robustscanner.recognizer import Recognizer

    with Recognizer(TINY) as recognizer:
        by_length = sorted(draw_crops(crops), key=lambda crop: len(recognizer.read(crop.path).text))
    short, long = (count_work(TINY, load_bytes([crop])) for crop in (by_length[0], by_length[-1]))
    assert short.product_gflop < long.product_gflop
    assert short.convolution_gflop == long.convolution_gflop


def test_plans_show_nothing(tmp_path: Path) -> None:
    assert find_graph(tmp_path) is None


def test_limit_is_arithmetic_or_moving() -> None:
    assert LIMITS.word_ms(Workload(4, 2, 2, 1)) == pytest.approx(10 + 20 + 10)
    assert LIMITS.word_ms(Workload(0.004, 0, 0, 100)) == pytest.approx(10)
    assert rate(Workload(4, 2, 2, 1), LIMITS, 80)["times_limit"] == pytest.approx(2)


def test_the_better_limit_counts() -> None:
    assert LIMITS.or_better(Limits(90, 500, 200, 700, 11)) == Limits(100, 500, 200, 800, 11)


def test_every_limit_is_measured() -> None:
    assert all(value > 0 for value in astuple(measure_limits(1, seconds=0)))
