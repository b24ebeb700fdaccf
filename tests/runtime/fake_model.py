"""A model of a few nodes with known readings: it spells the colour of a canvas' first pixel.

Red, green and blue each give one character, `CHARACTERS[value // 3]`; the score is valid width / canvas width. So a
test sees in the text alone which picture was read, in which order, and whether its channels arrived as RGB.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from robustscanner.spec import DICT90, ModelSpec, NetworkSpec

ROOT = Path(__file__).parents[2]  # of the checkout
SPEC = ModelSpec("fake", network=NetworkSpec(max_length=6))
CHARACTERS = DICT90
_STEP = 3  # grey levels that share a character, so that 256 of them need 86 of the 90 characters


@dataclass(frozen=True)
class FakeOptions:
    """What to get wrong."""

    spec_json: str | None = SPEC.to_json()  # None: no metadata
    opset: int = 17
    ir_version: int = 8
    batch: int | str = "N"
    width_px: int | str = 160  # "W": open
    score_scale: float = 1.0  # NaN: what broken weights give
    first_id: int = 0  # added to every character
    scores_name: str = "scores"


def open_width() -> FakeOptions:
    """Canvases as wide as their word and 8 px after it, in steps of 16 px."""
    size = replace(SPEC.input, width_px=320, canvas_step_px=16, canvas_margin_px=8)
    return FakeOptions(spec_json=replace(SPEC, input=size).to_json(), width_px="W")


def write_fake_model(path: Path, options: FakeOptions = FakeOptions()) -> Path:
    """Writes the model and returns its path."""
    steps = SPEC.network.max_length
    model = helper.make_model(_graph(options, steps), opset_imports=[helper.make_opsetid("", options.opset)])
    model.ir_version = options.ir_version
    if options.spec_json is not None:
        metadata = {"robustscanner.spec": options.spec_json, "robustscanner.history": json.dumps([])}
        helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path


def colour_of(text: str) -> tuple[int, int, int]:
    """The RGB colour that the model reads as this text of three characters; JPEG may move it by one."""
    red, green, blue = (CHARACTERS.index(c) * _STEP + 1 for c in text)
    return red, green, blue


def picture_of(text: str, height_px: int = 48, width_px: int = 80) -> np.ndarray:
    """A picture, uint8 RGB, that the model reads as this text of three characters."""
    return np.full((height_px, width_px, 3), colour_of(text), np.uint8)


def encode(rgb: np.ndarray, suffix: str = ".png") -> bytes:
    """An RGB picture as the bytes of a picture file."""
    return cv2.imencode(suffix, rgb[..., ::-1])[1].tobytes()


def _graph(options: FakeOptions, steps: int) -> onnx.GraphProto:
    charset = SPEC.charset
    tail = [charset.end_id] + [charset.pad_id] * (steps - 4)
    constants: dict[str, np.ndarray] = {
        "step": np.array(_STEP, np.int32),
        "first_id": np.array(options.first_id, np.int32),
        "zero": np.array(0, np.int64),
        "tail": np.array([tail], np.int32),  # (1, T - 3)
        "zeros": np.zeros((1, steps - 3), np.int32),
        "scale": np.array(options.score_scale, np.float32),
        "width_axis": np.array(2, np.int64),
        "ones": np.ones((1, steps - 1), np.float32),
        "column": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["images", "zero"], ["top_row"], axis=1),  # (N, W, 3)
        helper.make_node("Gather", ["top_row", "zero"], ["pixel"], axis=1),  # (N, 3)
        helper.make_node("Cast", ["pixel"], ["levels"], to=TensorProto.INT32),
        helper.make_node("Div", ["levels", "step"], ["ids"]),
        helper.make_node("Add", ["ids", "first_id"], ["word"]),
        helper.make_node("Unsqueeze", ["valid_width", "column"], ["widths"]),  # (N, 1)
        helper.make_node("Mul", ["widths", "zeros"], ["blank"]),  # (N, T - 3)
        helper.make_node("Add", ["blank", "tail"], ["ends"]),
        helper.make_node("Concat", ["word", "ends"], ["tokens"], axis=1),  # (N, T)
        helper.make_node("Cast", ["widths"], ["widths_px"], to=TensorProto.FLOAT),
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Gather", ["shape", "width_axis"], ["canvas_width"]),
        helper.make_node("Cast", ["canvas_width"], ["canvas_px"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["widths_px", "canvas_px"], ["filled"]),
        helper.make_node("Mul", ["filled", "scale"], ["first"]),
        helper.make_node("Div", ["widths_px", "widths_px"], ["one"]),
        helper.make_node("Mul", ["one", "ones"], ["others"]),  # (N, T - 1)
        helper.make_node("Concat", ["first", "others"], [options.scores_name], axis=1),  # (N, T)
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, [options.batch, 48, options.width_px, 3]),
        helper.make_tensor_value_info("valid_width", TensorProto.INT32, [options.batch]),
    ]
    outputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT32, [options.batch, steps]),
        helper.make_tensor_value_info(options.scores_name, TensorProto.FLOAT, [options.batch, steps]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_graph(nodes, "fake", inputs, outputs, initializers)
