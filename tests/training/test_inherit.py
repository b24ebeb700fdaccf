"""Starting from another model's weights: known characters keep theirs, whatever their ids are."""

from pathlib import Path

import pytest
import torch

from robustscanner.errors import SpecError
from robustscanner.spec import CharsetSpec, InputSpec, ModelSpec, NetworkSpec
from training.checkpoint import save_checkpoint
from training.inherit import inherit
from training.model.robustscanner import RobustScanner


def model(
    characters: str,
    *,
    max_length: int = 6,
    hidden_size: int = 16,
    resize: str = "linear",
    row_mixer: str = "lstm",
) -> RobustScanner:
    network = NetworkSpec("edge", hidden_size, max_length, (8, 8, 16, 16), row_mixer=row_mixer)
    return RobustScanner(ModelSpec("m", CharsetSpec.of(characters), InputSpec(resize=resize), network))


@pytest.fixture
def source(tmp_path: Path) -> tuple[RobustScanner, Path]:
    old = model("abc")
    save_checkpoint(tmp_path / "old.safetensors", old, [{"step": "train"}])
    return old, tmp_path / "old.safetensors"


def test_known_characters_and_special_tokens_keep_their_rows(source: tuple[RobustScanner, Path]) -> None:
    old, path = source
    new = model("xbya", max_length=8)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    inherited = inherit(new, path)
    assert (inherited.kept, inherited.fresh, inherited.dropped) == ("ba", "xy", "c")
    assert inherited.history == [{"step": "train"}]
    embedding, prediction = new.decoder.embedding.weight, new.decoder.prediction
    # xbya, unknown, start and end, pad  <-  abc, unknown, start and end, pad
    for i, j in {1: 1, 3: 0, 4: 3, 5: 4, 6: 5}.items():
        assert torch.equal(embedding[i], old.decoder.embedding.weight[j])
    for i, j in {1: 1, 3: 0, 4: 3, 5: 4}.items():
        assert torch.equal(prediction.weight[i], old.decoder.prediction.weight[j])
        assert prediction.bias[i] == old.decoder.prediction.bias[j]
    for i in (0, 2):
        assert torch.equal(embedding[i], before["decoder.embedding.weight"][i])
        assert torch.equal(prediction.weight[i], before["decoder.prediction.weight"][i])
    assert torch.equal(new.decoder.position.embedding.weight[:7], old.decoder.position.embedding.weight)
    assert torch.equal(new.backbone.layers[0][0].weight, old.backbone.layers[0][0].weight)


def test_the_same_characters_give_the_same_model(source: tuple[RobustScanner, Path]) -> None:
    old, path = source
    new = model("abc")
    assert not inherit(new, path).fresh
    assert all(torch.equal(a, b) for a, b in zip(new.state_dict().values(), old.state_dict().values(), strict=True))


def test_says_what_was_kept(source: tuple[RobustScanner, Path]) -> None:
    text = str(inherit(model("abz"), source[1]))
    assert text == (
        "old.safetensors: keeps 2 characters and all weights that depend on none; 1 are new: z; forgets 1: c"
    )


def test_another_row_mixer_starts_anew(source: tuple[RobustScanner, Path]) -> None:
    new = model("abc", row_mixer="conv")
    before = new.decoder.position.position_aware.rnn.mix[0].weight.clone()
    assert str(inherit(new, source[1])).endswith("; its row mixer starts anew")
    assert torch.equal(new.decoder.position.position_aware.rnn.mix[0].weight, before)
    assert torch.equal(new.decoder.rnn.weight_hh_l0, source[0].decoder.rnn.weight_hh_l0)


@pytest.mark.parametrize(("change", "message"), [({"hidden_size": 8}, "hidden_size"), ({"resize": "area"}, "resize")])
def test_other_networks_are_refused(source: tuple[RobustScanner, Path], change: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        inherit(model("abc", **change), source[1])
