"""Turns ONNX graphs into TensorRT plans."""

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from ctypes.util import find_library
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from robustscanner.engine import PRECISIONS, BatchRange
from robustscanner.errors import EngineError
from robustscanner.gpu.device import import_pycuda
from robustscanner.output import OutputError, replacing

from .extent import OpenShapes
from .installed import TensorRT, local_gpu
from .layers import Layer, LayerTensor, make_layer, parse_inspector, parse_log, type_name
from .watch import BuildWatch

_MIB = 1 << 20  # bytes
_NO_KERNEL = "Could not find any implementation"  # that obeys what layers are told
_LEVELS = range(6)  # of optimisation; TensorRT rounds what is beyond without a word
_TOLD_LINES = 3  # of the log's errors, when a build failed
_BORROWED_TACTICS = ("CUBLAS", "CUBLAS_LT", "CUDNN")

# What a parser's or builder's message says -> what to do about it.
_CURES = (
    ("Plugin not found|No importer registered|was not found in plugin registry", "update TensorRT"),
    ("opset", "export the model with opset 17, which every version since 8.5 reads"),
    ("has type UInt8|data type.*UINT8|UINT8", "cast it to float or int32 right after the graph's input"),
    ("INT64|has type Int64", "make it int32 in the graph"),
    ("Turing", "leave sm_75 out of the targets, or build with --fp16"),
    ("lean", "build without --version-compatible"),
    ("memory|allocat", "lower --max-batch, or raise --workspace-mib"),
)
_OTHERWISE = "take another TensorRT, or --backend onnxruntime, and report it with the ONNX file"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuilderOptions:
    """How to build, whatever the graph."""

    precision: str  # one of robustscanner.engine.PRECISIONS
    batch: BatchRange  # of every input whose first dimension is open
    typing: str = "auto"  # "auto", "strong" or "weak"
    workspace_mib: int | None = None  # scratch memory for one layer; None: what the GPU has
    optimization_level: int | None = None  # 0…5: how long to look for fast kernels; None: TensorRT's own choice, 3
    version_compatible: bool = False  # newer versions of TensorRT can load the plan, and run what code it brings
    open_shapes: OpenShapes = field(default_factory=dict)  # of inputs in which more than the batch is open
    targets: tuple[str, ...] = ()  # "sm_86", …: TensorRT-RTX only; none: any GPU that it supports


@dataclass(frozen=True)
class BuiltPlan:
    """A built engine, as `deserialize_cuda_engine` takes it."""

    data: bytes
    layers: tuple[Layer, ...]  # () when this TensorRT keeps them to itself
    seconds: float  # that the build took


def check_options(
    library: TensorRT, options: BuilderOptions, *, calibrator: bool = False, timing_cache: bool = False
) -> None:
    """Looks, before long work starts, whether this TensorRT on this machine can do what is asked for.

    Args:
        library: what is to build.
        options: how.
        calibrator: INT8 comes from TensorRT's own calibrator instead of from Q/DQ nodes.
        timing_cache: a cache file is wanted.

    Raises:
        EngineError: it cannot, or there is no such precision, level or target.
    """
    features, title = library.features, library.title
    if calibrator and not features.calibrator:
        raise EngineError(f"--int8-calibrator: {title} has none; leave it out")
    strong = library.is_strong(options.typing)
    if options.precision not in PRECISIONS:
        raise EngineError(f"unknown precision {options.precision!r}; known are {', '.join(PRECISIONS)}")
    if options.precision == "int8" and not (strong or features.int8_flag):
        raise EngineError(f"--int8: {title} has no INT8 with weak typing; use strong typing or --fp16")
    if calibrator and strong:
        raise EngineError(f"--int8-calibrator: {title} has none for strongly typed networks; leave it out")
    if options.version_compatible and not features.version_compatible:
        raise EngineError(f"--version-compatible: {title} cannot; leave it out, and build where the engine will run")
    if options.optimization_level is not None and not features.optimization_level:
        raise EngineError(f"--optimization-level: {title} has no levels; leave it out")
    if options.optimization_level is not None and options.optimization_level not in _LEVELS:
        raise EngineError(f"--optimization-level: {options.optimization_level} is not one of 0…{_LEVELS[-1]}")
    if options.workspace_mib is not None and options.workspace_mib < 1:
        raise EngineError(f"--workspace-mib: {options.workspace_mib} is less than 1 MiB; give more, or leave it out")
    if timing_cache and not features.timing_cache:
        raise EngineError(f"--timing-cache: {title} times nothing while it builds; leave it out")
    _check_targets(library, options.targets)


def check_reading(library: TensorRT, options: BuilderOptions, *, calibrator: bool = False) -> None:
    """Looks, before long work starts, whether what is built can be read with here afterwards, if this GPU is for it.

    Raises:
        EngineError: PyCUDA is missing.
    """
    if calibrator or runs_here(library, options):
        import_pycuda(library.title)


def runs_here(library: TensorRT, options: BuilderOptions) -> bool:
    """Whether this machine's GPU is one of those that are built for."""
    here, targets = local_gpu(), options.targets or library.features.targets
    return here is not None and (not targets or here in targets)


def build_plan(
    library: TensorRT,
    model: bytes,
    options: BuilderOptions,
    *,
    float32_layers: frozenset[str] = frozenset(),
    calibrator: Any = None,
    timing_cache: Path | None = None,
    label: str = "building",
) -> BuiltPlan:
    """Parses, builds, and lists what came out.

    Args:
        library: what builds.
        model: an ONNX file; typed as it is to run where networks are strongly typed.
        options: checked with `check_options` before.
        float32_layers: ONNX nodes that stay FP32 where networks are weakly typed.
        calibrator: what `calibrator.calibrating` gives, for INT8 without Q/DQ nodes.
        timing_cache: a file that is read and written, so that a second build is quick.
        label: before the progress bar.

    Raises:
        EngineError: the parser or the builder refuses; or what was built cannot be loaded.
        KeyboardInterrupt: Ctrl-C; the build is stopped where this TensorRT can.
    """
    watch = BuildWatch(label, asks=library.features.progress_monitor)
    build = _Build(library, options, float32_layers, calibrator, timing_cache)
    return watch.run(lambda: build.run(model, watch))


def list_network(
    library: TensorRT, model: bytes, options: BuilderOptions, *, float32_layers: frozenset[str] = frozenset()
) -> tuple[Layer, ...]:
    """Parses only: the layers of the network before anything is fused, with the precision each would run in.

    Raises:
        EngineError: the parser refuses.
    """
    build = _Build(library, options, float32_layers)
    return BuildWatch("parsing", asks=False).run(lambda: build.list_network(model))


@dataclass
class _Log:
    """What TensorRT says, as far as it is of use later."""

    errors: deque[str] = field(default_factory=lambda: deque(maxlen=_TOLD_LINES))
    complaints: deque[str] = field(default_factory=lambda: deque(maxlen=_TOLD_LINES))  # errors and warnings
    layers: str = ""  # the message that lists the layers of the engine

    def connect(self, module: Any) -> Any:
        """An ILogger that feeds this."""
        log = self
        error, warning = (int(level) for level in (module.ILogger.Severity.ERROR, module.ILogger.Severity.WARNING))

        class Logger(module.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                module.ILogger.__init__(self)  # pybind11 wants its own constructor called, not super()'s

            def log(self, level: Any, message: str) -> None:
                if int(level) <= warning:
                    log.complaints.append(message)
                if int(level) <= error:
                    log.errors.append(message)
                elif int(level) == warning:
                    logger.info("TensorRT: %s", message)
                elif message.startswith("Layers:"):
                    log.layers = message

        return Logger()


class _Build:
    """One network on its way to a plan. Everything of TensorRT's happens in the thread that calls a public method."""

    def __init__(
        self,
        library: TensorRT,
        options: BuilderOptions,
        float32_layers: frozenset[str],
        calibrator: Any = None,
        timing_cache: Path | None = None,
    ) -> None:
        self._library, self._options = library, options
        self._float32_layers, self._calibrator, self._timing_cache = float32_layers, calibrator, timing_cache
        self._module, self._features = library.module, library.features
        self._strong = library.is_strong(options.typing)
        self._tells_layers = bool(float32_layers) and not self._strong and options.precision != "fp32"
        self._log = _Log()
        self._logger = self._log.connect(library.module)  # must outlive all that TensorRT makes with it

    def run(self, model: bytes, watch: BuildWatch) -> BuiltPlan:
        """Parses, builds, lists the layers."""
        started = time.monotonic()
        builder = self._builder()
        network, _parser = self._parse(builder, model)
        config = self._configure(builder, network, model)
        cache = self._read_timing_cache(config)
        if self._features.progress_monitor:
            config.progress_monitor = watch.monitor(self._module)
        self._log.errors.clear()  # without a GPU, TensorRT-RTX has complained about that several times by now
        memory = builder.build_serialized_network(network, config)
        for second_try in (self._lend_tactics, self._let_layers_choose):
            if memory is None and second_try(config):
                memory = builder.build_serialized_network(network, config)
        if memory is None:
            raise EngineError(self._explain("cannot build the network", self._last_errors()))
        if cache is not None:
            self._write_timing_cache(config)
        data = bytes(memory)
        return BuiltPlan(data, self._layers(data), time.monotonic() - started)

    def list_network(self, model: bytes) -> tuple[Layer, ...]:
        """Parses, and lists the network's layers."""
        network, _parser = self._parse(self._builder(), model)
        exact = {layer.name for layer in self._exact_layers(network, model)} if self._tells_layers else set()
        return tuple(_describe_network(network, partial(self._would_be, exact)))

    def _builder(self) -> Any:
        try:
            return self._module.Builder(self._logger)
        except (TypeError, RuntimeError) as error:  # what pybind11 makes of a null pointer
            cause = self._last_errors() if self._log.errors else error
            raise EngineError(f"{self._library.title} does not start ({cause}); it needs a working GPU") from None

    def _parse(self, builder: Any, model: bytes) -> tuple[Any, Any]:
        """The network, and the parser, which owns the network's weights."""
        flags = []
        if self._features.explicit_batch_flag:
            flags.append(self._module.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
        if self._strong and hasattr(self._module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
            flags.append(self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(sum(1 << int(flag) for flag in flags))
        if network is None:
            raise EngineError(self._explain("cannot create a network", self._last_errors()))
        parser = self._module.OnnxParser(network, self._logger)
        if not parser.parse(model):
            raise EngineError(self._parser_error(parser, model))
        return network, parser

    def _parser_error(self, parser: Any, model: bytes) -> str:
        if not parser.num_errors:
            return self._explain("cannot parse the ONNX file", self._last_errors())
        error = parser.get_error(0)
        index = error.node()
        try:
            nodes = onnx.load_model_from_string(model).graph.node
        except Exception:  # protobuf's own exceptions differ between its versions
            return self._explain("cannot parse the ONNX file", error.desc())
        node = nodes[index] if 0 <= index < len(nodes) else onnx.NodeProto()
        name = error.node_name() if hasattr(error, "node_name") else node.name
        operator = error.node_operator() if hasattr(error, "node_operator") else node.op_type
        return self._explain(f"cannot take node {name!r} ({operator or 'no operator'})", error.desc())

    def _configure(self, builder: Any, network: Any, model: bytes) -> Any:
        config = builder.create_builder_config()
        if config is None:
            raise EngineError(self._explain("cannot create a builder config", self._last_errors()))
        # Attention scores are not scaled and reach 200; TF32 would round keys and queries to 10 bits before.
        config.clear_flag(self._module.BuilderFlag.TF32)
        config.profiling_verbosity = self._module.ProfilingVerbosity.DETAILED  # so that layers say their types
        if self._options.workspace_mib is not None:
            self._limit_workspace(config, self._options.workspace_mib * _MIB)
        if self._options.optimization_level is not None:
            config.builder_optimization_level = self._options.optimization_level
        if self._options.version_compatible:
            config.set_flag(self._module.BuilderFlag.VERSION_COMPATIBLE)
        self._drop_borrowed_tactics(config)
        self._share_profiles(config)
        self._add_profile(builder, network, config)
        if not self._strong:
            self._set_precision(config, network, model)
        if self._options.targets:
            self._set_targets(config)
        return config

    def _limit_workspace(self, config: Any, limit: int) -> None:
        pool = self._module.MemoryPoolType.WORKSPACE
        config.set_memory_pool_limit(pool, limit)
        if config.get_memory_pool_limit(pool) != limit:  # the setter has no other way to refuse
            raise EngineError(f"--workspace-mib: TensorRT does not take {limit // _MIB} MiB; give less")

    def _drop_borrowed_tactics(self, config: Any) -> None:
        """TensorRT 8.6 loads cuBLAS and cuDNN when it needs them and aborts the process where they are missing.

        Newer versions have these sources off by default, and 11 has none.
        """
        sources = self._module.TacticSource
        borrowed = sum(1 << int(getattr(sources, name)) for name in _BORROWED_TACTICS if hasattr(sources, name))
        self._default_tactics = config.get_tactic_sources() if borrowed else 0
        if borrowed and not config.set_tactic_sources(self._default_tactics & ~borrowed):
            raise EngineError(self._explain("cannot do without cuBLAS and cuDNN", self._last_errors()))

    def _lend_tactics(self, config: Any) -> bool:
        """After a failed build: allows cuBLAS and cuDNN where they are installed; whether that may change anything."""
        dropped = self._default_tactics and config.get_tactic_sources() != self._default_tactics
        if not dropped or not all(find_library(name) for name in ("cublas", "cublasLt", "cudnn")):
            return False
        logger.info("no kernel for a layer; once more with cuBLAS and cuDNN")
        self._log.errors.clear()
        return bool(config.set_tactic_sources(self._default_tactics))

    def _share_profiles(self, config: Any) -> None:
        """Lets the contexts of all batch buckets use the one profile; since TensorRT 10 that goes without saying."""
        features = getattr(self._module, "PreviewFeature", None)
        if feature := getattr(features, "PROFILE_SHARING_0806", None):
            config.set_preview_feature(feature, True)

    def _add_profile(self, builder: Any, network: Any, config: Any) -> None:
        profile, batch = builder.create_optimization_profile(), self._options.batch
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        for tensor in inputs:
            first, *rest = tensor.shape
            shapes = self._options.open_shapes.get(tensor.name, ((first, *rest),) * 3)
            if -1 in shapes[0][1:]:
                raise EngineError(f"input {tensor.name!r} of shape {(first, *rest)}: nobody says how large it may be")
            if -1 in (first, *rest):
                sizes = zip((batch.min, batch.opt, batch.max), shapes, strict=True)
                profile.set_shape(tensor.name, *((size if first == -1 else first, *shape[1:]) for size, shape in sizes))
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(self._explain("refuses the batch sizes", self._last_errors()))
        if self._calibrator is not None and not config.set_calibration_profile(profile):
            raise EngineError(self._explain("refuses the batch sizes for calibration", self._last_errors()))

    def _set_precision(self, config: Any, network: Any, model: bytes) -> None:
        flags = self._module.BuilderFlag
        if self._options.precision == "fp32":
            return
        config.set_flag(flags.FP16)
        if self._options.precision == "int8":
            config.set_flag(flags.INT8)
        if self._calibrator is not None:
            config.int8_calibrator = self._calibrator
        if self._tells_layers:
            config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS)
            self._keep_float32(network, model)

    def _keep_float32(self, network: Any, model: bytes) -> None:
        kind = self._module.DataType.FLOAT
        for layer in self._exact_layers(network, model):
            floats = [index for index in range(layer.num_outputs) if layer.get_output(index).dtype == kind]
            if floats:  # TensorRT refuses a precision for what computes with indices
                layer.precision = kind
            for index in floats:
                layer.set_output_type(index, kind)

    def _exact_layers(self, network: Any, model: bytes) -> list[Any]:
        """What the parser made of the nodes that stay FP32.

        It makes several layers of some and names them as it likes, but goes node by node, and what a node gives keeps
        its name.
        """
        makers = {name: node.name for node in onnx.load_model_from_string(model).graph.node for name in node.output}
        found: dict[str, list[Any]] = {}
        waiting: list[Any] = []
        for layer in _layers_of(network):
            waiting.append(layer)
            given = (layer.get_output(index).name for index in range(layer.num_outputs))
            if node := next((makers[name] for name in given if name in makers), None):
                found.setdefault(node, []).extend(waiting)
                waiting.clear()
        if missing := sorted(self._float32_layers - found.keys()):
            logger.warning("no layer is made of %s; it may run in half precision", ", ".join(missing))
        return [layer for node in sorted(self._float32_layers & found.keys()) for layer in found[node]]

    def _let_layers_choose(self, config: Any) -> bool:
        """After a failed build: what was told to stay FP32 may do otherwise; whether that may change anything."""
        flags = self._module.BuilderFlag
        if not self._tells_layers or not any(_NO_KERNEL in error for error in self._log.errors):
            return False
        config.clear_flag(flags.OBEY_PRECISION_CONSTRAINTS)
        config.set_flag(flags.PREFER_PRECISION_CONSTRAINTS)
        logger.warning(
            "warning: %s cannot keep all scores in FP32; compare what is read with --fp32", self._library.title
        )
        self._log.errors.clear()
        return True

    def _set_targets(self, config: Any) -> None:
        config.num_compute_capabilities = len(self._options.targets)
        for index, target in enumerate(self._options.targets):
            capability = getattr(self._module.ComputeCapability, _enum_name(target))
            if not config.set_compute_capability(capability, index):
                raise EngineError(self._explain(f"refuses target {target}", self._last_errors()))

    def _read_timing_cache(self, config: Any) -> Any:
        """Attaches the cache in the file, or an empty one when that is missing, damaged or another version's."""
        path = self._timing_cache
        if path is None:
            return None
        data = _read_bytes(path)
        self._log.complaints.clear()
        cache = config.create_timing_cache(data)
        attached = cache is not None and config.set_timing_cache(cache, False)
        if data and (not attached or self._log.complaints):
            why = _essence(self._log.complaints[-1]) if self._log.complaints else "it does not say why"
            logger.warning(
                "%s: not a timing cache of %s on this GPU (%s); starting an empty one", path, self._library.title, why
            )
        if attached:
            return cache
        cache = config.create_timing_cache(b"")
        return cache if cache is not None and config.set_timing_cache(cache, False) else None

    def _write_timing_cache(self, config: Any) -> None:
        cache, path = config.get_timing_cache(), self._timing_cache
        data = cache.serialize() if cache is not None else None
        if data is None or path is None:
            return
        try:
            with replacing(path, force=True) as temporary:
                temporary.write_bytes(bytes(data))
        except OutputError as error:  # an engine without a cache is still an engine
            logger.warning("%s", error)

    def _layers(self, plan: bytes) -> tuple[Layer, ...]:
        if self._library.backend == "tensorrt-rtx":  # only a GPU can load its plans, but its log lists the layers
            return parse_log(self._log.layers)
        runtime = self._module.Runtime(self._logger)
        if self._options.version_compatible:
            runtime.engine_host_code_allowed = True  # of the plan that was made a moment ago, by this very library
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(self._explain("cannot load what it built", self._last_errors()))
        text = engine.create_engine_inspector().get_engine_information(self._module.LayerInformationFormat.JSON)
        return parse_inspector(text)

    def _would_be(self, exact: Collection[str], layer: Layer, after_dequantise: bool) -> str:
        if after_dequantise and layer.is_convolution:
            return "Int8"
        if self._strong or layer.precision != "Float" or self._options.precision == "fp32":
            return layer.precision
        return "Float" if layer.name in exact else "Half"

    def _last_errors(self) -> str:
        """The last is often only «failed», and the reason stands before it."""
        return " / ".join(_essence(error) for error in self._log.errors) or "it does not say why"

    def _explain(self, what: str, why: str) -> str:
        """One line: what failed, the library's own words, and the cure if it is known."""
        words = _essence(why)
        cure = next((cure for pattern, cure in _CURES if re.search(pattern, words)), _OTHERWISE)
        return f"{self._library.title} {what} ({words}); {cure}"


def _check_targets(library: TensorRT, targets: Iterable[str]) -> None:
    known = library.features.targets
    for target in targets:
        if not known:
            raise EngineError(f"--target {target}: {library.title} builds for the GPU in this machine; leave it out")
        if target not in known:
            raise EngineError(
                f"--target {target}: {library.title} builds for {', '.join(known)} only; take one of them"
            )
    if not known and local_gpu() is None:
        raise EngineError(
            f"{library.title} builds on an NVIDIA GPU only, and there is none here; build where it will run"
        )


def _describe_network(network: Any, precision: Callable[[Layer, bool], str]) -> Iterator[Layer]:
    dequantised: set[str] = set()
    for layer in _layers_of(network):
        kind = layer.type.name
        inputs, outputs = (
            [_describe_tensor(get(index)) for index in range(count) if get(index) is not None]
            for get, count in ((layer.get_input, layer.num_inputs), (layer.get_output, layer.num_outputs))
        )
        if kind == "DEQUANTIZE":
            dequantised.update(tensor.name for tensor in outputs)
        made = make_layer(layer.name, kind, inputs, outputs, [layer.name])
        after = bool(inputs) and inputs[0].name in dequantised
        yield Layer(made.name, made.kind, precision(made, after), made.inputs, made.outputs, made.nodes)


def _describe_tensor(tensor: Any) -> LayerTensor:
    try:
        shape = tuple(tensor.shape)
    except ValueError:  # of unknown rank
        shape = ()
    return LayerTensor(tensor.name, type_name(tensor.dtype.name), shape)


def _layers_of(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _essence(text: str) -> str:
    """The line that tells most, without places in the library's source."""
    lines = [line for line in text.splitlines() if not re.search("Invalid Node|Cuda Runtime", line)] or [text]
    return re.sub(r"\s*In \w+ at /[^\s)]+|^\S+: Error Code \d+: ", "", lines[0]).strip()


def _enum_name(target: str) -> str:
    return target.replace("_", "").upper()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        logger.warning("%s: cannot be read (%s); starting an empty one", path, error.strerror or error)
        return b""
