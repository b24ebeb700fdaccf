"""Stand-ins for every TensorRT in tests/tensorrt_api: they have just the names of that version, and note what is asked.

They parse ONNX into one layer a node and build nothing. A name that a version lacks raises AttributeError, and so does
setting one: a call that only newer versions have fails a test on a machine without any of them.
"""

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
from onnx import TensorProto

from convert.engine.trt.installed import TensorRT, describe

API = Path(__file__).parents[3] / "tensorrt_api"
DUMPS = {path.stem: path for path in sorted(API.glob("*.json"))}

LAYER_LINE = (
    "Name: conv_myl0_2, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [-1,4,8,8], Strides: [256,64,8,1], "
    "StrideOrder: [3,2,1,0], Datatype: Half, Format: (Linear) Row major }], Constants: [], Outputs: [ { Name: y, "
    "Dimensions: [-1,4,8,8], Strides: [256,64,8,1], StrideOrder: [3,2,1,0], Datatype: Half, Format: (Linear) "
    "Row major }], TacticName: , StreamId: 0, Metadata: [ONNX Layer: conv]"
)
INSPECTOR = {
    "Layers": [
        {
            "Name": "conv",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Dimensions": [-1, 4, 8, 8], "Format/Datatype": "Row major linear FP16 format"}],
            "Outputs": [{"Name": "y", "Dimensions": [-1, 4, 8, 8], "Format/Datatype": "Row major linear FP16 format"}],
        }
    ],
    "Bindings": ["x", "y"],
}


@dataclass
class Notes:
    """What was asked of a fake, and how it is to behave."""

    product: str = "tensorrt"
    network_flags: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=lambda: {"TF32"})
    profiles: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    network: Any = None
    config: Any = None
    targets: dict[int, str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    parser_error: SimpleNamespace | None = None  # node, node_name, node_operator, desc
    build_fails: str | None = None  # what is logged then
    obeys: bool = True  # finds kernels that obey what layers are told
    foreign_cache: bytes = b"foreign"  # a timing cache that is refused
    loads: bool = True
    on_build: Callable[[Any], None] = lambda config: None  # called by a build
    make_plan: Callable[[bytes, "Notes"], bytes | None] = lambda model, notes: b"plan"
    model: bytes = b""  # what was parsed last
    log_error: Callable[[str], None] = lambda message: None  # as the library would, once there is a builder


def load(name: str) -> tuple[TensorRT, Notes]:
    """The stand-in for one of DUMPS, and its notes."""
    dump = json.loads(DUMPS[name].read_text(encoding="utf-8"))
    notes = Notes(product=dump["product"])
    return describe(_module(dump, notes), dump["product"]), notes


def _module(dump: dict[str, Any], notes: Notes) -> Any:
    module = SimpleNamespace(__version__=dump["version"])
    for name, names in dump["classes"].items():
        members = [member for member in names if member.isupper() or member.startswith("SM")]
        is_enum = {"name", "value"} <= set(names)
        made = enum.IntEnum(name, members, start=0) if is_enum else _make_class(name, names, module, notes)
        setattr(module, name, made)
    if hasattr(module, "ILogger"):
        module.ILogger.Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])
    return module


class _Restricted:
    """Has no attribute but those of its class."""

    _names: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in self._names:
            raise AttributeError(f"{type(self).__name__} has no {name!r} in this version")
        super().__setattr__(name, value)


def _make_class(name: str, names: list[str], module: Any, notes: Notes) -> type:
    behaviour = {key: value for key, value in _behaviour(name, module, notes).items() if key in names or key[0] == "_"}
    unknown = {key: None for key in names if key not in behaviour}
    return type(name, (_Restricted,), {**unknown, **behaviour, "_names": frozenset(names)})


def _behaviour(name: str, module: Any, notes: Notes) -> dict[str, Any]:
    """Methods of the classes of which the builder makes objects."""
    makers = {
        "Builder": _builder,
        "OnnxParser": _parser,
        "IBuilderConfig": _config,
        "IOptimizationProfile": _profile,
        "Runtime": _runtime,
    }
    return makers[name](module, notes) if name in makers else {}


def _builder(module: Any, notes: Notes) -> dict[str, Any]:
    def init(self: Any, logger: Any) -> None:
        self._logger = logger
        notes.log_error = lambda message: logger.log(module.ILogger.Severity.ERROR, message)

    def create_network(self: Any, flags: int) -> Any:
        kinds = module.NetworkDefinitionCreationFlag
        notes.network_flags = [kind.name for kind in kinds if flags >> int(kind) & 1]
        notes.network = _make(module.INetworkDefinition)
        return notes.network

    def create_builder_config(self: Any) -> Any:
        notes.config = module.IBuilderConfig()
        return notes.config

    def build(self: Any, network: Any, config: Any) -> bytes | None:
        notes.on_build(config)
        severity = module.ILogger.Severity
        if notes.build_fails is not None:
            self._logger.log(severity.ERROR, notes.build_fails)
            return None
        if not notes.obeys and "OBEY_PRECISION_CONSTRAINTS" in notes.flags:
            self._logger.log(severity.ERROR, "10: Could not find any implementation for node {ForeignNode[a...b]}.")
            return None
        if notes.product == "tensorrt-rtx":
            self._logger.log(severity.VERBOSE, f"Layers:\n{LAYER_LINE}\n\nI/O Tensors:\n")
        return notes.make_plan(notes.model, notes)

    return {
        "__init__": init,
        "create_network": create_network,
        "create_builder_config": create_builder_config,
        "create_optimization_profile": lambda self: module.IOptimizationProfile(),
        "build_serialized_network": build,
    }


def _parser(module: Any, notes: Notes) -> dict[str, Any]:
    def init(self: Any, network: Any, logger: Any) -> None:
        self._network = network

    def parse(self: Any, data: bytes) -> bool:
        explicit = not hasattr(module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH")
        if notes.parser_error is not None or not (explicit or "EXPLICIT_BATCH" in notes.network_flags):
            self.num_errors = 1 if notes.parser_error is not None else 0
            return False
        notes.model = data
        _fill(self._network, onnx.load_model_from_string(data).graph, module)
        return True

    def get_error(self: Any, index: int) -> Any:
        found = vars(notes.parser_error)
        return _make(module.ParserError, **{key: (lambda value=value: value) for key, value in found.items()})

    return {"__init__": init, "parse": parse, "get_error": get_error}


def _config(module: Any, notes: Notes) -> dict[str, Any]:
    def set_timing_cache(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return bool(cache.serialize() != notes.foreign_cache)

    def set_tactic_sources(self: Any, sources: int) -> bool:
        self._sources = sources
        return _note(notes, f"tactics {_names(module.TacticSource, sources)}")

    def set_memory_pool_limit(self: Any, pool: Any, limit: int) -> None:
        self._limit = min(limit, 1 << 33)

    def create_timing_cache(self: Any, data: bytes) -> Any:
        return _make(module.ITimingCache, serialize=lambda: data)

    def set_compute_capability(self: Any, capability: Any, index: int) -> bool:
        notes.targets[index] = capability.name
        return True

    return {
        "set_flag": lambda self, flag: notes.flags.add(flag.name),
        "clear_flag": lambda self, flag: notes.flags.discard(flag.name),
        "get_tactic_sources": lambda self: getattr(self, "_sources", (1 << len(module.TacticSource)) - 1),
        "set_tactic_sources": set_tactic_sources,
        "set_preview_feature": lambda self, feature, on: _note(notes, f"{feature.name} {on}"),
        "set_memory_pool_limit": set_memory_pool_limit,
        "get_memory_pool_limit": lambda self, pool: self._limit,
        "create_timing_cache": create_timing_cache,
        "set_timing_cache": set_timing_cache,
        "get_timing_cache": lambda self: _make(module.ITimingCache, serialize=lambda: b"times"),
        "add_optimization_profile": lambda self, profile: 0,
        "set_calibration_profile": lambda self, profile: _note(notes, "calibration profile"),
        "set_compute_capability": set_compute_capability,
    }


def _profile(module: Any, notes: Notes) -> dict[str, Any]:
    def set_shape(self: Any, name: str, low: Any, best: Any, high: Any) -> None:
        if not all(0 < a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
            raise RuntimeError("Shape provided for min/opt/max is inconsistent")  # PY_ASSERT_RUNTIME_ERROR
        notes.profiles[name] = [tuple(low), tuple(best), tuple(high)]

    return {"set_shape": set_shape}


def _runtime(module: Any, notes: Notes) -> dict[str, Any]:
    def inspect(layer_format: Any) -> str:
        return json.dumps(INSPECTOR)

    def deserialize(self: Any, data: bytes) -> Any:
        if not notes.loads:
            self._logger.log(module.ILogger.Severity.ERROR, "out of memory")
            return None
        inspector = _make(module.EngineInspector, get_engine_information=inspect)
        return _make(module.ICudaEngine, create_engine_inspector=lambda: inspector)

    def init(self: Any, logger: Any) -> None:
        self._logger = logger

    return {"__init__": init, "deserialize_cuda_engine": deserialize}


def _fill(network: Any, graph: onnx.GraphProto, module: Any) -> None:
    weights = {tensor.name for tensor in graph.initializer}
    tensors = {value.name: _tensor(value, module) for value in graph.input}
    network._inputs = list(tensors.values())
    network._layers = []
    for node in graph.node:
        kind = module.DataType.INT32 if node.op_type == "Shape" else module.DataType.FLOAT
        for name in node.output:
            tensors[name] = _make(module.ITensor, name=name, shape=(-1, 4), dtype=kind)
        inputs = [tensors[name] for name in node.input if name and name not in weights]
        layer_name = node.name
        if node.op_type == "Clip":  # as the parser of 8.6 does: two layers, neither called as the node is
            layer_name, between = "(Unnamed Layer* 7) [ElementWise]", f"({node.name}, lower bound)"
            tensor = _make(module.ITensor, name=between, shape=(-1, 4), dtype=kind)
            network._layers.append(_layer(node.op_type, between, inputs, [tensor], module))
            inputs = [tensor]
        network._layers.append(
            _layer(node.op_type, layer_name, inputs, [tensors[name] for name in node.output], module)
        )
    network.num_inputs, network.num_layers = len(network._inputs), len(network._layers)
    network.get_input = network._inputs.__getitem__
    network.get_layer = network._layers.__getitem__


def _layer(operator: str, name: str, inputs: list[Any], outputs: list[Any], module: Any) -> Any:
    kinds = {"Conv": "CONVOLUTION", "DequantizeLinear": "DEQUANTIZE", "QuantizeLinear": "QUANTIZE"}
    layer = _make(module.ILayer, name=name, type=SimpleNamespace(name=kinds.get(operator, "UNARY")))
    layer.num_inputs, layer.num_outputs = len(inputs), len(outputs)
    layer.get_input, layer.get_output = inputs.__getitem__, outputs.__getitem__
    layer._types = {}
    if hasattr(type(layer), "set_output_type"):
        layer.set_output_type = layer._types.__setitem__
    return layer


def _tensor(value: onnx.ValueInfoProto, module: Any) -> Any:
    kinds = {
        TensorProto.FLOAT: "FLOAT",
        TensorProto.FLOAT16: "HALF",
        TensorProto.INT32: "INT32",
        TensorProto.UINT8: "UINT8",
    }
    kind = value.type.tensor_type
    shape = tuple(-1 if size.dim_param else size.dim_value for size in kind.shape.dim)
    return _make(module.ITensor, name=value.name, shape=shape, dtype=module.DataType[kinds[kind.elem_type]])


def _make(kind: Any, **attributes: Any) -> Any:
    made = kind()
    for name, value in attributes.items():
        if name in kind._names:  # a name that this version lacks stays missing
            setattr(made, name, value)
    return made


def _names(kinds: Any, mask: int) -> str:
    return ",".join(kind.name for kind in kinds if mask >> int(kind) & 1)


def _note(notes: Notes, event: str) -> bool:
    notes.events.append(event)
    return True
