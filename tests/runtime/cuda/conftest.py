"""Words for the kernels: what encoders make of crops, and what ONNX Runtime reads in them."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from reference import MEMORY, Arrays

from convert.engine.trt.kernel_weights import decode_weights
from convert.graph.export import build_graph
from robustscanner.preprocess import Image, load_image, make_batch
from robustscanner.spec import ModelSpec, NetworkSpec
from tests.convert.conftest import ROOT
from training.checkpoint import load_checkpoint
from training.model.robustscanner import RobustScanner

CROPS = 500
MODELS = ROOT / "tests" / "models"


@dataclass(frozen=True)
class Words:
    """A model's words."""

    model: RobustScanner
    weights: Arrays  # of the graph
    memory: Arrays  # of all words, float
    widths: np.ndarray  # of all words, px
    tokens: np.ndarray  # that the graph reads in ONNX Runtime
    scores: np.ndarray

    @property
    def sizes(self) -> dict[str, Any]:
        """What a call says of the model."""
        charset = self.model.spec.charset
        ids = {"start_id": charset.start_id, "end_id": charset.end_id, "pad_id": charset.pad_id}
        network = self.model.spec.network
        return {"steps": network.max_length, "ctc_weight": network.ctc_weight, **ids}

    def kernel_weights(self, *, half: bool) -> Arrays:
        return decode_weights(self.weights, np.float16 if half else np.float32)

    def part(self, rows: Any, *, half: bool) -> Arrays:
        """Memory of some words, as an engine hands it over."""
        found = {name: np.ascontiguousarray(array[rows]) for name, array in self.memory.items()}
        if half:
            found |= {name: found[name].astype(np.float16) for name in ("values", "position")}
        return found


def crops() -> list[Image]:
    """The crops of calib_data, and pairs of them side by side, which are long words."""
    single = [
        load_image(path)
        for folder in ("demo", "images")
        for path in sorted((ROOT / "calib_data" / folder).glob("*.jpg"))
    ]
    pairs = zip(single, single[7:], strict=False)
    return [*single, *(_beside(left, right) for left, right in pairs)][:CROPS]


def _beside(left: Image, right: Image) -> Image:
    width = max(1, round(right.shape[1] * left.shape[0] / right.shape[0]))
    return np.hstack([left, cv2.resize(right, (width, left.shape[0]))])


def words_of(model: RobustScanner, graph: onnx.ModelProto, images: np.ndarray, widths: np.ndarray) -> Words:
    """Runs the graph, whose memory is asked for beside its text."""
    wanted = [*MEMORY, *(("ctc_following", "ctc_stays") if model.spec.network.ctc_weight else ())]
    for name in wanted:
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = ["tokens", "scores", *wanted]
    read = dict(zip(names, session.run(names, {"images": images, "valid_width": widths}), strict=True))
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    memory = {name: read[name] for name in MEMORY}
    memory["mask"] = memory["mask"][:, 0]
    if "ctc_stays" in read:  # see training/model/joint.py
        memory["labels"] = np.ascontiguousarray(read["ctc_following"][:, :-1])
        memory["blanks"] = np.ascontiguousarray(np.diagonal(read["ctc_stays"], 1, 1, 2)[:, :, None])
    if "fusion" in weights:  # multiplied in the loop; in an engine it is in the values
        memory["values"] = memory["values"] @ weights["fusion"]
    return Words(model, weights, memory, widths, read["tokens"], read["scores"])


@pytest.fixture(scope="session")
def edge() -> Words:
    """A trained model with a row LSTM and without CTC, on 500 crops."""
    model = load_checkpoint(MODELS / "edge-lstm.safetensors")[0].eval()
    images, widths = make_batch(crops(), model.spec.input)
    assert len(images) == CROPS
    return words_of(model, onnx.load(MODELS / "edge-lstm.onnx"), images, widths)


@pytest.fixture(scope="session")
def r31() -> Words:
    """The paper's network with random weights, loud enough that words differ, on 16 crops of all widths."""
    torch.manual_seed(0)
    model = RobustScanner(ModelSpec("r31-random")).eval()
    size = model.spec.input
    images, widths = make_batch(crops()[:16], size)
    widths[:] = np.linspace(size.min_width_px, size.width_px, 16).astype(int) // 4 * 4
    with torch.no_grad():
        model.encoder.weight.mul_(4)
        model.decoder.embedding.weight.mul_(3)
        for weight in model.decoder.rnn.parameters():
            weight.mul_(3)
        logits, _ = model.greedy(torch.from_numpy(images[:4]), torch.from_numpy(widths[:4]))
        last, mean, spread = model.decoder.prediction, logits.mean((0, 1)), logits.std((0, 1))
        last.weight /= spread[:, None]
        last.bias.copy_((last.bias - mean) / spread)
        last.bias[model.spec.charset.end_id] += 1.5
    return words_of(model, build_graph(model, fold_values=True), images, widths)


@pytest.fixture(scope="session")
def joint() -> Words:
    """A model in which CTC has a say, with random weights, on 16 crops."""
    torch.manual_seed(1)
    model = RobustScanner(ModelSpec("joint", network=NetworkSpec("edge", ctc_weight=0.4))).eval()
    with torch.no_grad():
        model.encoder.weight.mul_(4)
        model.ctc_head.weight.mul_(6)
        model.decoder.prediction.weight.mul_(20)
        model.ctc_head.bias[-1] += 1
    images, widths = make_batch(crops()[:16], model.spec.input)
    return words_of(model, build_graph(model, fold_values=True), images, widths)
