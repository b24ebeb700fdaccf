"""Engines for TensorRT and TensorRT-RTX: encoder and decoding step, each a plan, in the precision asked for."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from onnx import ModelProto

from robustscanner.engine import DECODER_NAME, ENCODER_NAME, SINGLE_NAME, BatchRange
from robustscanner.gpu.decoding import canvas_widths
from robustscanner.output import replacing

from ..engine.product import Product
from ..engine.source import Source
from ..graph.model_file import file_step
from ..graph.split import split
from ..int8.calibration import CalibrationSet
from ..quantize import Quantized, QuantizeOptions, describe, quantize
from .attention import TURING, fuse_attention, spread_scores
from .builder import BuilderOptions, Plan, build_plan, list_network, runs_here
from .calibrator import calibrating
from .extent import OpenShapes, open_shapes
from .half import exact_nodes, to_half
from .layers import Layer, convolution_precisions, kernels, layers_to_json, requantising, summarise
from .library import Library
from .row_lstm import unroll_rows
from .simulate import read_simulated

HALF_ENDS = ("values", "position")  # tensors between the two plans; keys and mask stay FP32 for the scores' sake
ROW_LSTM = ("wavefront", "loop")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TensorRTOptions:
    """How to build with one of NVIDIA's libraries."""

    builder: BuilderOptions
    quantize: QuantizeOptions
    row_lstm: str = "wavefront"  # of ROW_LSTM
    calibrator: bool = False  # TensorRT's own calibration instead of Q/DQ nodes
    calibration_cache: Path | None = None  # of that calibrator
    timing_cache: Path | None = None
    save_layers: Path | None = None


@dataclass(frozen=True)
class Graphs:
    """The networks as TensorRT is to take them, types included where it is strongly typed."""

    encoder: ModelProto
    decoder: ModelProto
    quantized: Quantized | None  # before types
    open_shapes: OpenShapes  # of their inputs

    def __iter__(self) -> Iterator[tuple[str, ModelProto]]:
        yield "encoder", self.encoder
        yield "decoder", self.decoder


def make(
    source: Source, calibration: CalibrationSet, library: Library, options: TensorRTOptions, folder: Path
) -> Product:
    """Writes `encoder.plan` and `decoder.plan`.

    Raises:
        EngineError: TensorRT refuses.
    """
    graphs = prepare(source, calibration, library, options)
    options = _with_shapes(options, graphs)
    plans = {f"{name}.plan": _build(name, graph, calibration, library, options) for name, graph in graphs}
    if options.builder.batch.min == 1 < options.builder.batch.max:
        alone = replace(options, builder=replace(options.builder, batch=BatchRange(1, 1, 1)))
        plans[SINGLE_NAME] = _build("decoder", graphs.decoder, calibration, library, alone)
    for file, plan in plans.items():
        (folder / file).write_bytes(plan.data)
    layers = [layer for file in (ENCODER_NAME, DECODER_NAME) for layer in plans[file].layers]
    if options.save_layers:
        save_layers(options.save_layers, layers, library, "built engine")
    return Product(
        library.backend,
        files=list(plans),
        batch=options.builder.batch,
        versions={library.backend: library.version},
        device=_device(library, options.builder),
        steps=_steps(source, graphs, options),
        summary=[*_summary(graphs, layers), *_kernels(plans), *_sizes(source, plans)],
        details=describe_layers(layers),
        simulate=None if runs_here(library, options.builder) else lambda: _simulate(source, graphs, calibration),
    )


def preview(
    source: Source, calibration: CalibrationSet, library: Library, options: TensorRTOptions
) -> tuple[list[tuple[str, str]], list[Layer]]:
    """Parses, builds nothing: lines of a summary, and the layers of both networks before anything is fused."""
    graphs = prepare(source, calibration, library, options)
    options = _with_shapes(options, graphs)
    layers = [
        layer
        for name, graph in graphs
        for layer in list_network(
            library, graph.SerializeToString(), options.builder, float32_layers=_float32(name, graph)
        )
    ]
    return _summary(graphs, layers), layers


def prepare(source: Source, calibration: CalibrationSet, library: Library, options: TensorRTOptions) -> Graphs:
    """Splits, quantises, unrolls and types."""
    encoder, decoder = split(source.model, source.spec)
    quantized = None
    if options.builder.precision == "int8" and not options.calibrator:
        quantized = quantize(encoder, calibration, options.quantize, for_tensorrt=True)
        encoder = quantized.model
    if options.row_lstm == "wavefront" and any(node.op_type == "LSTM" for node in encoder.graph.node):
        encoder = unroll_rows(encoder)
    strong = library.is_strong(options.builder.typing)
    if strong:  # as are all versions that fuse such sums
        encoder, decoder = fuse_attention(encoder, decoder)
    shapes = open_shapes(encoder, decoder, canvas_widths(source.spec))
    if options.builder.precision != "fp32" and strong:
        encoder, decoder = to_half(encoder, HALF_ENDS), to_half(decoder, HALF_ENDS)
    if TURING in options.builder.targets:
        encoder = spread_scores(encoder)
    return Graphs(encoder, decoder, quantized, shapes)


def _with_shapes(options: TensorRTOptions, graphs: Graphs) -> TensorRTOptions:
    return replace(options, builder=replace(options.builder, open_shapes=graphs.open_shapes))


def save_layers(path: Path, layers: Sequence[Layer], library: Library, source: str) -> None:
    """Writes a list of layers as JSON, over one that is there."""
    with replacing(path, force=True) as temporary:
        temporary.write_text(layers_to_json(layers, {"source": source, "library": library.title}), encoding="utf-8")


def describe_layers(layers: Sequence[Layer]) -> list[str]:
    """A line each."""
    return [f"{layer.precision:6} {layer.kind:24} {layer.name}" for layer in layers]


def _build(
    name: str, graph: ModelProto, calibration: CalibrationSet, library: Library, options: TensorRTOptions
) -> Plan:
    model, builder = graph.SerializeToString(), options.builder
    build = partial(
        build_plan, library, model, float32_layers=_float32(name, graph), timing_cache=options.timing_cache, label=name
    )
    if name == "decoder" and builder.precision == "int8":
        return build(replace(builder, precision="fp16"))  # nothing in it has a range
    if not options.calibrator:
        return build(builder)
    cache = options.calibration_cache
    with calibrating(library, model, calibration, batch=builder.batch.opt, cache=cache) as calibrator:
        return build(builder, calibrator=calibrator)


def _float32(name: str, graph: ModelProto) -> frozenset[str]:
    """Nodes that weakly typed networks are told to keep FP32: scores, and pixels before they are normalised."""
    pixels = [node.name for node in graph.graph.node[:8] if node.op_type in ("Sub", "Div")] if name == "encoder" else []
    return exact_nodes(graph.graph) | frozenset(pixels)


def _device(library: Library, options: BuilderOptions) -> dict[str, str]:
    facts = {"version_compatible": "true"} if options.version_compatible else {}
    if library.features.targets:
        targets = ",".join(options.targets or library.features.targets)
        return {"name": "built without a GPU", "targets": targets, **facts}
    from robustscanner.gpu.tensorrt_session import host_facts

    here = host_facts(library.backend, 0)
    return {"name": here.name, "compute_capability": here.compute_capability, **facts}


def _steps(source: Source, graphs: Graphs, options: TensorRTOptions) -> list[dict[str, object]]:
    made = file_step("split", "convert/build_engine.py", source.path) | {"row_lstm": options.row_lstm}
    if graphs.quantized is None:
        return [made]
    return [made, {"step": "quantize", "tool": "convert/build_engine.py", **graphs.quantized.details}]


def _summary(graphs: Graphs, layers: Sequence[Layer]) -> list[tuple[str, str]]:
    lines = []
    if graphs.quantized:
        lines.append(("quantised", describe(graphs.quantized)))
    if not layers:
        return lines
    counts = ", ".join(f"{count} {precision}" for precision, count in summarise(layers).items())
    lines.append(("layers", counts))
    convolutions = [node.name for node in graphs.encoder.graph.node if node.op_type == "Conv"]
    found = convolution_precisions(layers, convolutions)
    by_precision = {kind: sum(value == kind for value in found.values()) for kind in sorted(set(found.values()))}
    lines.append(("convolutions", ", ".join(f"{count} {kind or 'not listed'}" for kind, count in by_precision.items())))
    chosen = graphs.quantized.placement.convolutions if graphs.quantized else ()
    if missed := [name for name in chosen if found[name] not in ("Int8", "")]:
        logger.warning("warning: %d convolutions were to be INT8 and are not, the first: %s", len(missed), missed[0])
    return lines


def _kernels(plans: dict[str, Plan]) -> list[tuple[str, str]]:
    """Launches are what a small batch costs on a GPU."""
    counts = {file: len(kernels(plan.layers)) for file, plan in plans.items()}
    if not all(counts.values()):
        return []
    text = f"encoder {counts[ENCODER_NAME]}, each step {counts[DECODER_NAME]}"
    if SINGLE_NAME in counts:
        text += f" ({counts[SINGLE_NAME]} for one picture)"
    if extra := len(requantising(plans[ENCODER_NAME].layers)):
        text += f"; {extra} of the encoder's only requantise"
    return [("kernels", text)]


def _sizes(source: Source, plans: dict[str, Plan]) -> list[tuple[str, str]]:
    encoder = len(plans[ENCODER_NAME].data) / 1e6
    decoder = sum(len(plan.data) for plan in plans.values()) / 1e6 - encoder
    seconds = sum(plan.seconds for plan in plans.values())
    before = source.path.stat().st_size / 1e6
    return [
        ("size", f"encoder {encoder:.1f} MB, decoder {decoder:.1f} MB (FP32 model {before:.1f} MB)"),
        ("built in", f"{seconds:.0f} s"),
    ]


def _simulate(source: Source, graphs: Graphs, calibration: CalibrationSet) -> list[str]:
    return read_simulated(graphs.encoder, graphs.decoder, source.spec, calibration)
