"""The layers of a built engine, and in which precision each computes."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# How types are written by TensorRT-RTX and TensorRT 10 ("Float"), in format descriptions of older ones ("FP32"), and by
# the network definition ("FLOAT") -> here.
_TYPES = {"FP32": "Float", "FLOAT": "Float", "FP16": "Half", "HALF": "Half", "INT8": "Int8", "INT32": "Int32"} | {
    "INT64": "Int64", "BOOL": "Bool", "UINT8": "UInt8", "BF16": "BFloat16", "BFLOAT16": "BFloat16", "FP8": "FP8",
}  # fmt: skip

_PRECISIONS = frozenset({"Float", "Half", "BFloat16", "Int8", "FP8"})
_CONVOLUTION = re.compile("correlation|conv", re.IGNORECASE)
_FIELD = re.compile(r"(Name|LayerType|Inputs|Constants|Outputs|TacticName|StreamId|Metadata): ")
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[^\]]*)\],.*?Datatype: (?P<type>\w+)")


@dataclass(frozen=True)
class LayerTensor:
    """What a layer reads or writes."""

    name: str
    type: str  # "Float", "Half", "Int8", …
    shape: tuple[int, ...]  # -1: the batch


@dataclass(frozen=True)
class Layer:
    """One kernel, or a group of them, in an engine; or one layer of a network that is not built yet."""

    name: str
    kind: str  # as TensorRT calls it: "correlation", "CaskConvolution", "kgen", "CONVOLUTION", …
    precision: str  # type of what it reads first: a convolution of Int8 computes in Int8; "" for none
    inputs: tuple[LayerTensor, ...]
    outputs: tuple[LayerTensor, ...]
    nodes: tuple[str, ...]  # ONNX nodes that it computes

    @property
    def is_convolution(self) -> bool:
        """Whether TensorRT calls it one."""
        return bool(_CONVOLUTION.search(self.kind))


def make_layer(
    name: str, kind: str, inputs: Sequence[LayerTensor], outputs: Sequence[LayerTensor], nodes: Iterable[str]
) -> Layer:
    """A layer that computes in the type of what it reads first, or of what it writes."""
    precision = next((tensor.type for tensor in [*inputs, *outputs]), "")
    return Layer(name, kind, precision, tuple(inputs), tuple(outputs), tuple(nodes))


def parse_log(message: str) -> tuple[Layer, ...]:
    """Layers of the message «Layers: …» that TensorRT-RTX logs when it built an engine with detailed verbosity."""
    return tuple(_parse_line(line) for line in message.splitlines() if line.startswith("Name: "))


def parse_inspector(text: str) -> tuple[Layer, ...]:
    """Layers of what `EngineInspector.get_engine_information` returns as JSON; () when it knows only their names."""
    layers = json.loads(text, strict=False).get("Layers", [])  # TensorRT 8.6 leaves line breaks inside strings
    return tuple(_parse_layer(layer) for layer in layers if isinstance(layer, dict))


def summarise(layers: Iterable[Layer]) -> dict[str, int]:
    """How many layers compute in which precision, the most frequent first; bookkeeping with integers is left out."""
    return dict(Counter(layer.precision for layer in layers if layer.precision in _PRECISIONS).most_common())


def kernels(layers: Iterable[Layer]) -> list[Layer]:
    """Those that run on the GPU; the others compute shapes on the host."""
    return [layer for layer in layers if layer.kind != "shape_call"]


def requantising(layers: Iterable[Layer]) -> list[Layer]:
    """Kernels that do nothing but turn what a convolution gave into the Int8 of the next, or one type into another."""
    return [
        layer
        for layer in layers
        if not layer.is_convolution and layer.outputs and all(tensor.type == "Int8" for tensor in layer.outputs)
    ]


def convolution_precisions(layers: Iterable[Layer], nodes: Iterable[str]) -> dict[str, str]:
    """The precision that each of these convolutions (ONNX nodes) computes in; "" for one that no layer names.

    Several layers may name a node, for example one that rounds its input to Int8. The convolution itself counts.
    """
    found: dict[str, Layer] = {}
    for layer in layers:
        for node in layer.nodes:
            if node not in found or (layer.is_convolution and not found[node].is_convolution):
                found[node] = layer
    return {node: found[node].precision if node in found else "" for node in nodes}


def layers_to_json(layers: Iterable[Layer], header: Mapping[str, Any]) -> str:
    """Text of a file for people and scripts.

    Args:
        layers: of one engine.
        header: where the list comes from: "source", and what else is known about the build.
    """
    lines = ",\n".join(f"  {json.dumps(asdict(layer), ensure_ascii=False)}" for layer in layers)
    frame = json.dumps({**header, "layers": []}, indent=1, ensure_ascii=False)
    return frame.removesuffix("[]\n}") + f"[\n{lines}\n ]\n}}\n"  # a layer a line


def type_name(text: str) -> str:
    """One name for each type: "Float" of "FP32", "FLOAT", and "Row major linear FP32"."""
    for word in re.findall(r"\w+", text):
        if word.upper() in _TYPES:
            return _TYPES[word.upper()]
    return text


def _parse_line(line: str) -> Layer:
    """«Name: …, LayerType: …, Inputs: [ { Name: …, …, Datatype: … }, …], …, Metadata: [ONNX Layer: …][…]»."""
    fields = dict(_fields(line))
    inputs, outputs = (list(_tensors(fields.get(key, ""))) for key in ("Inputs", "Outputs"))
    return make_layer(fields["Name"], fields.get("LayerType", ""), inputs, outputs, _nodes(fields.get("Metadata", "")))


def _fields(line: str) -> Iterator[tuple[str, str]]:
    """Keys and values outside of the braces around tensors, which have keys of the same names."""
    depth, starts = 0, []
    braces = {"{": 1, "}": -1}
    for match in re.finditer(r"[{}]|" + _FIELD.pattern, line):
        depth += braces.get(match[0], 0)
        if match[0] not in braces and depth == 0:
            starts.append(match)
    ends = [match.start() for match in starts[1:]] + [len(line)]
    for match, end in zip(starts, ends, strict=True):
        yield match[1], line[match.end() : end].rstrip(", ")


def _tensors(text: str) -> Iterator[LayerTensor]:
    for match in _TENSOR.finditer(text):
        shape = tuple(int(size) for size in match["shape"].split(",") if size)
        yield LayerTensor(match["name"], type_name(match["type"]), shape)


def _nodes(metadata: str) -> list[str]:
    return re.findall(r"\[ONNX Layer: ([^]]*)\]", metadata)


def _parse_layer(layer: Mapping[str, Any]) -> Layer:
    inputs, outputs = (
        [
            LayerTensor(
                str(tensor.get("Name", "")),
                type_name(str(tensor.get("Datatype") or tensor.get("Format/Datatype", ""))),
                tuple(tensor.get("Dimensions", ())),
            )
            for tensor in layer.get(key, [])
        ]
        for key in ("Inputs", "Outputs")
    )
    name = str(layer.get("Name", ""))
    nodes = _nodes(str(layer.get("Metadata", ""))) or name.split(" + ")  # older versions join the names of fused nodes
    return make_layer(name, str(layer.get("LayerType", "")), inputs, outputs, nodes)
