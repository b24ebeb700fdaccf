"""Starting from the borrowed encoder: what is no such file is told so; with the wheel, characters get their rows."""

from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

from robustscanner.errors import SpecError
from training.adopt_encoder import copy_weights, read_encoder
from training.config import load_config
from training.model.robustscanner import RobustScanner

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "small.yaml"


def graph(**metadata: str) -> bytes:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.helper.set_model_props(model, metadata)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no graph", "not an ONNX file"),
        (graph(), "does not say which characters it reads"),
    ],
)
def test_other_files_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        read_encoder(data, "x.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("characters", ["0123456789", "αβγδεζηθ", "あいうえお"])
def test_borrows_for_any_characters_that_it_knows(characters: str) -> None:
    if find_spec("rapidocr") is None:
        pytest.skip("rapidocr, whose wheel holds the encoder, is not installed")
    from training.adopt_encoder import _installed

    path = _installed()
    model = RobustScanner(load_config(CONFIG, [f"characters={characters}"]).spec)
    encoder = read_encoder(path.read_bytes(), str(path))
    copy_weights(encoder, model, str(path))
    assert model.ctc_head is not None
    place = 1 + encoder.characters.index(characters[0])
    assert (model.ctc_head.weight[0].detach().numpy() == encoder.layers[-1].weight[place]).all()
    with pytest.raises(SpecError, match="does not know"):
        copy_weights(encoder, RobustScanner(load_config(CONFIG, ["characters=\U00013000"]).spec), "x.onnx")
