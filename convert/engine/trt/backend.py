"""Engines for TensorRT and TensorRT-RTX: encoder and decoding step, each a plan, in the precision asked for."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from onnx import ModelProto

from robustscanner.engine import (
    BACK_NAME,
    DECODER_NAME,
    ENCODER_NAME,
    FRONT_NAME,
    KERNELS_NAME,
    ROWS_NAME,
    SINGLE_NAME,
    WEIGHTS_NAME,
    BatchRange,
)
from robustscanner.errors import EngineError
from robustscanner.output import replacing
from robustscanner.spec import ModelSpec

from ...graph.model_file import file_step
from ...graph.split import split
from ...int8.calibration import CalibrationSet, Collect, collect_ranges
from ...int8.placement import quantisable
from ...int8.qdq_tensorrt import quantise_convolutions
from ...int8.recipe import KEY_LAYERS, Quantized, Recipe
from ..backend import Preview
from ..bundle import write_manifest
from ..model_source import Source
from ..product import Product
from .attention import TURING, fuse_attention, spread_scores
from .builder import (
    BuilderOptions,
    BuiltPlan,
    build_plan,
    check_options,
    check_reading,
    list_network,
    runs_here,
)
from .calibrator import calibrating
from .extent import OpenShapes, open_shapes
from .half import exact_nodes, to_half
from .installed import TensorRT, load_library
from .kernel_files import check_kernels, write_kernels, write_row_weights
from .layers import Layer, convolution_precisions, kernels, layers_to_json, requantising, summarise
from .row_cut import SHARES, STATES, RowCut, cut_rows
from .row_lstm import unroll_rows
from .simulate import read_simulated
from .timing import read_in_turns

HALF_ENDS = ("values", "position")  # tensors between the two plans; keys and mask stay FP32 for the scores' sake
ROW_ENDS = (*HALF_ENDS, SHARES, STATES)  # and beside the row kernel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TensorRTOptions:
    """How to build with one of NVIDIA's libraries."""

    builder: BuilderOptions
    row_lstm: str = "wavefront"  # "loop" or "kernel"; that is built with the kernel too, for GPUs that cannot run it
    decoder: str = "steps"  # or "kernel"; likewise steps
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
    rows: RowCut | None = None  # the encoder around the row kernel

    def __iter__(self) -> Iterator[tuple[str, ModelProto]]:
        yield "encoder", self.encoder
        yield "decoder", self.decoder
        if self.rows:
            yield "front", self.rows.front
            yield "back", self.rows.back


@dataclass(frozen=True)
class TensorRTBackend:
    """TensorRT or TensorRT-RTX."""

    narrow_weights: ClassVar[bool] = False

    tensorrt: TensorRT
    options: TensorRTOptions

    @classmethod
    def open(cls, name: str, options: TensorRTOptions, *, reads: bool) -> "TensorRTBackend":
        """Imports "tensorrt" or "tensorrt-rtx" and looks, before long work starts, whether it can do that.

        Args:
            name: as in engine.json.
            options: how to build.
            reads: what is built is to be read with, here and now.

        Raises:
            EngineError: it is not installed, or it cannot.
        """
        library, builder, calibrator = load_library(name), options.builder, options.calibrator
        check_options(library, builder, calibrator=calibrator, timing_cache=options.timing_cache is not None)
        if reads:
            check_reading(library, builder, calibrator=calibrator)
        return cls(library, options)

    @staticmethod
    def quantise(
        source: Source, calibration: CalibrationSet, recipe: Recipe, *, collect: Collect = collect_ranges
    ) -> Quantized:
        """The exported graph, with convolutions in 8 bits; see `Quantise`."""
        layers = recipe.choose(quantisable(source.model.graph))
        model, ranges = quantise_convolutions(source.model, layers, recipe, calibration, collect)
        return Quantized.of(model, layers, recipe, exported=source.model, calibration=calibration, ranges=ranges)

    def make(self, source: Source, calibration: CalibrationSet, recipe: Recipe | None, folder: Path) -> Product:
        """Writes `encoder.plan` and `decoder.plan`, and the decode kernel if that is asked for; see `Backend`."""
        if self.options.decoder == "kernel":
            check_kernels(source.spec)
        if self.options.row_lstm == "kernel":
            _check_rows(self.options, source)
        graphs, library = self.prepare(source, calibration, recipe), self.tensorrt
        options = _with_shapes(self.options, graphs)
        plans = {f"{name}.plan": _build(name, graph, calibration, library, options) for name, graph in graphs}
        if options.builder.batch.min == 1 < options.builder.batch.max:
            alone = replace(options, builder=replace(options.builder, batch=BatchRange(1, 1, 1)))
            plans[SINGLE_NAME] = _build("decoder", graphs.decoder, calibration, library, alone)
        for file, plan in plans.items():
            (folder / file).write_bytes(plan.data)
        device, steps, files = _device(library, options.builder), _steps(source, graphs, options), list(plans)
        if options.decoder == "kernel":
            targets = device.get("targets", device.get("compute_capability", "")).split(",")
            steps.append(write_kernels(folder, source.model, graphs.encoder, source.spec, targets))
            files += [KERNELS_NAME, WEIGHTS_NAME]
        if graphs.rows:
            write_row_weights(folder, graphs.rows)
            files.append(ROWS_NAME)
        layers = [layer for file in (ENCODER_NAME, DECODER_NAME) for layer in plans[file].layers]
        here, int8 = runs_here(library, options.builder), options.builder.precision == "int8"
        self._save_layers(layers, "built engine")
        return Product(
            library.backend,
            files=files,
            batch=options.builder.batch,
            versions={library.backend: library.version},
            device=device,
            steps=steps,
            summary=[*_summary(graphs, layers), *_kernels(plans), *_sizes(source, plans)],
            details=_describe(layers),
            simulate=None if here else partial(_simulate, source, graphs, calibration),
            compare=partial(self._time_beside_half, source, calibration) if here and int8 else None,
        )

    def _time_beside_half(self, source: Source, calibration: CalibrationSet, folder: Path) -> tuple[str, str]:
        """INT8 is not always faster, least of all word by word: builds FP16, too, and says what each takes."""
        builder = replace(self.options.builder, precision="fp16")
        rival = replace(self, options=replace(self.options, builder=builder, calibrator=False, save_layers=None))
        with TemporaryDirectory() as scratch:
            half = Path(scratch)
            write_manifest(source, "fp16", rival.make(source, calibration, None, half), None, half)
            int8_ms, half_ms = read_in_turns((folder, half), [crop.path for crop in calibration.crops])
        if int8_ms >= half_ms:
            logger.warning("warning: INT8 is not faster than FP16 here; FP16 reads closer to FP32: --fp16")
        return "speed", f"{int8_ms:.2f} ms a word, one at a time; FP16 {half_ms:.2f} ms"

    def preview(self, source: Source, calibration: CalibrationSet, recipe: Recipe | None) -> Preview:
        """Parses, builds nothing: layers of both networks before anything is fused; see `Backend`."""
        graphs, library = self.prepare(source, calibration, recipe), self.tensorrt
        options = _with_shapes(self.options, graphs)
        layers = [
            layer
            for name, graph in graphs
            for layer in list_network(
                library,
                graph.SerializeToString(),
                _builder_for(name, graph, library, options),
                float32_layers=_float32(name, graph),
            )
        ]
        self._save_layers(layers, "network before the build")
        return Preview(f"{library.title}; before layers are fused", _summary(graphs, layers), _describe(layers))

    def settle(self, recipe: Recipe, spec: ModelSpec) -> Recipe:
        """See `Backend`."""
        return recipe.settled(spec, KEY_LAYERS, narrow=self.narrow_weights)

    def prepare(self, source: Source, calibration: CalibrationSet, recipe: Recipe | None) -> Graphs:
        """Quantises, splits, unrolls and types."""
        builder = self.options.builder
        quantized = self.quantise(source, calibration, recipe) if recipe else None
        encoder, decoder = split(quantized.model if quantized else source.model, source.spec)
        rows = cut_rows(encoder) if self.options.row_lstm == "kernel" else None
        if self.options.row_lstm != "loop" and _has_lstm(encoder):
            encoder = unroll_rows(encoder)
        strong = self.tensorrt.is_strong(builder.typing)
        if strong:  # as are all versions that fuse such sums
            rows = rows and replace(rows, front=fuse_attention(rows.front, decoder)[0])
            encoder, decoder = fuse_attention(encoder, decoder)
        shapes = open_shapes(encoder, decoder, source.spec.input.canvas_widths)
        if builder.precision != "fp32" and strong:
            encoder, decoder = to_half(encoder, HALF_ENDS), to_half(decoder, HALF_ENDS)
            rows = rows and replace(rows, front=to_half(rows.front, ROW_ENDS), back=to_half(rows.back, ROW_ENDS))
        if TURING in builder.targets:
            encoder = spread_scores(encoder)
            rows = rows and replace(rows, back=spread_scores(rows.back))
        return Graphs(encoder, decoder, quantized, shapes, rows)

    def _save_layers(self, layers: Sequence[Layer], source: str) -> None:
        """Writes the list that was asked for, over one that is there."""
        if path := self.options.save_layers:
            text = layers_to_json(layers, {"source": source, "library": self.tensorrt.title})
            with replacing(path, force=True) as temporary:
                temporary.write_text(text, encoding="utf-8")


def _has_lstm(graph: ModelProto) -> bool:
    return any(node.op_type == "LSTM" for node in graph.graph.node)


def _check_rows(options: TensorRTOptions, source: Source) -> None:
    """Before minutes of work."""
    if options.decoder != "kernel":
        raise EngineError("--row-lstm kernel: goes with the decode kernel; give --decoder kernel as well")
    if options.calibrator:
        raise EngineError("--row-lstm kernel: TensorRT's own calibrator needs a whole encoder; leave one of both out")
    if not _has_lstm(source.model):
        raise EngineError(f"--row-lstm kernel: {source.spec.name} has no LSTM over its rows; leave it out")


def _with_shapes(options: TensorRTOptions, graphs: Graphs) -> TensorRTOptions:
    return replace(options, builder=replace(options.builder, open_shapes=graphs.open_shapes))


def _describe(layers: Sequence[Layer]) -> list[str]:
    """A line each."""
    return [f"{layer.precision:6} {layer.kind:24} {layer.name}" for layer in layers]


def _build(
    name: str, graph: ModelProto, calibration: CalibrationSet, library: TensorRT, options: TensorRTOptions
) -> BuiltPlan:
    model, builder = graph.SerializeToString(), _builder_for(name, graph, library, options)
    build = partial(
        build_plan, library, model, float32_layers=_float32(name, graph), timing_cache=options.timing_cache, label=name
    )
    if not options.calibrator or builder.precision != "int8":
        return build(builder)
    cache = options.calibration_cache
    with calibrating(library, model, calibration, batch=builder.batch.opt, cache=cache) as calibrator:
        return build(builder, calibrator=calibrator)


def _builder_for(name: str, graph: ModelProto, library: TensorRT, options: TensorRTOptions) -> BuilderOptions:
    """What of an INT8 engine has no range is half; steps are FP32 where types are flags, not part of the graph.

    There, TensorRT 8.6 finds no kernels for a step whose scores alone are FP32 (seen on an H100); and a step costs
    launches, not products.
    """
    builder = options.builder
    if name == "decoder" and not library.is_strong(builder.typing):
        return replace(builder, precision="fp32")
    quantised = any(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    if builder.precision == "int8" and (name == "decoder" or (name == "back" and not quantised)):
        return replace(builder, precision="fp16")
    return builder


def _float32(name: str, graph: ModelProto) -> frozenset[str]:
    """Nodes that weakly typed networks are told to keep FP32: scores, and pixels before they are normalised."""
    pixels = (
        [node.name for node in graph.graph.node[:8] if node.op_type in ("Sub", "Div")]
        if name in ("encoder", "front")
        else []
    )
    return exact_nodes(graph.graph) | frozenset(pixels)


def _device(library: TensorRT, options: BuilderOptions) -> dict[str, str]:
    facts = {"version_compatible": "true"} if options.version_compatible else {}
    if library.features.targets:
        targets = ",".join(options.targets or library.features.targets)
        return {"name": "built without a GPU", "targets": targets, **facts}
    from robustscanner.gpu.tensorrt_session import host_facts

    here = host_facts(library.backend, 0)
    return {"name": here.name, "compute_capability": here.compute_capability, **facts}


def _steps(source: Source, graphs: Graphs, options: TensorRTOptions) -> list[dict[str, object]]:
    quantize, split_ = (file_step(name, "convert/build_engine.py", source.path) for name in ("quantize", "split"))
    quantized = [quantize | graphs.quantized.details] if graphs.quantized else []
    return [*quantized, split_ | {"row_lstm": options.row_lstm}]


def _summary(graphs: Graphs, layers: Sequence[Layer]) -> list[tuple[str, str]]:
    lines = []
    if graphs.quantized:
        lines.append(("quantised", str(graphs.quantized)))
    if not layers:
        return lines
    counts = ", ".join(f"{count} {precision}" for precision, count in summarise(layers).items())
    lines.append(("layers", counts))
    convolutions = [node.name for node in graphs.encoder.graph.node if node.op_type == "Conv"]
    found = convolution_precisions(layers, convolutions)
    by_precision = {kind: sum(value == kind for value in found.values()) for kind in sorted(set(found.values()))}
    lines.append(("convolutions", ", ".join(f"{count} {kind or 'not listed'}" for kind, count in by_precision.items())))
    chosen = graphs.quantized.convolutions if graphs.quantized else ()
    if missed := [name for name in chosen if found[name] not in ("Int8", "")]:
        logger.warning("warning: %d convolutions were to be INT8 and are not, the first: %s", len(missed), missed[0])
    return lines


def _kernels(plans: dict[str, BuiltPlan]) -> list[tuple[str, str]]:
    """Launches are what a small batch costs on a GPU."""
    counts = {file: len(kernels(plan.layers)) for file, plan in plans.items()}
    if not all(counts.values()):
        return []
    text = f"encoder {counts[ENCODER_NAME]}, each step {counts[DECODER_NAME]}"
    if SINGLE_NAME in counts:
        text += f" ({counts[SINGLE_NAME]} for one picture)"
    if FRONT_NAME in counts:
        text += f"; {counts[FRONT_NAME] + counts[BACK_NAME]} around the row kernel instead of the encoder's"
    if extra := len(requantising(plans[ENCODER_NAME].layers)):
        text += f"; {extra} of the encoder's only requantise"
    return [("kernels", text)]


def _sizes(source: Source, plans: dict[str, BuiltPlan]) -> list[tuple[str, str]]:
    encoder = len(plans[ENCODER_NAME].data) / 1e6
    decoder = sum(len(plans[name].data) for name in (DECODER_NAME, SINGLE_NAME) if name in plans) / 1e6
    seconds = sum(plan.seconds for plan in plans.values())
    before = source.path.stat().st_size / 1e6
    return [
        ("size", f"encoder {encoder:.1f} MB, decoder {decoder:.1f} MB (FP32 model {before:.1f} MB)"),
        ("built in", f"{seconds:.0f} s"),
    ]


def _simulate(source: Source, graphs: Graphs, calibration: CalibrationSet) -> list[str]:
    return read_simulated(graphs.encoder, graphs.decoder, source.spec, calibration)
