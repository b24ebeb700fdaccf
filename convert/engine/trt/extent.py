"""How large inputs may be whose canvases have no fixed width: what TensorRT wants to know before it builds."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, ValueInfoProto

from ...graph.session import open_on_cpu

Shape = tuple[int, ...]  # -1: the batch
OpenShapes = Mapping[str, tuple[Shape, Shape, Shape]]  # of inputs: smallest, most usual, largest


def open_shapes(encoder: ModelProto, decoder: ModelProto, widths_px: Sequence[int]) -> OpenShapes:
    """Shapes of the inputs of both graphs in which more than the batch is open; none where canvases have one width.

    Args:
        encoder: as `graph.split` gives it, in float32; it is run, as only it knows what a width makes of the memory.
        decoder: its inputs name their open dimensions; what has one name in memory and state is alike.
        widths_px: of canvases, ascending.
    """
    images = next(value for value in encoder.graph.input if value.name == "images")
    if not _is_open(images):
        return {}
    session = open_on_cpu(encoder)
    found: dict[str, list[Shape]] = {}
    for width in (widths_px[0], widths_px[len(widths_px) // 2], widths_px[-1]):
        canvas = (1, *(width if size == 0 else size for size in _sizes(images)[1:]))
        inputs = {"images": np.zeros(canvas, np.uint8), "valid_width": np.array([width], np.int32)}
        names = [value.name for value in encoder.graph.output]
        memory = dict(zip(names, session.run(names, inputs), strict=True))
        lengths = {"": 0}
        for value in decoder.graph.input:
            if value.name in memory:
                lengths |= zip(_names(value), memory[value.name].shape, strict=True)
        found.setdefault("images", []).append((-1, *canvas[1:]))
        for value in filter(_is_open, decoder.graph.input):
            rest = zip(_names(value)[1:], _sizes(value)[1:], strict=True)
            found.setdefault(value.name, []).append((-1, *(size or lengths[name] for name, size in rest)))
    return {name: (low, usual, high) for name, (low, usual, high) in found.items()}


def _is_open(value: ValueInfoProto) -> bool:
    return 0 in _sizes(value)[1:]


def _sizes(value: ValueInfoProto) -> list[int]:
    """0: open."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _names(value: ValueInfoProto) -> list[str]:
    return [dimension.dim_param for dimension in value.type.tensor_type.shape.dim]
