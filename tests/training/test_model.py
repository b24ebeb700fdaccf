"""The network: the paper's arithmetic, its published numbers, and greedy decoding that carries its state."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from robustscanner.spec import CharsetSpec, InputSpec, ModelSpec, NetworkSpec
from tests.golden.rule import fill
from training.model.position import RowConvolutions
from training.model.robustscanner import RobustScanner

GOLDEN = Path(__file__).parents[1] / "golden"


def tiny(backbone: str = "edge") -> RobustScanner:
    torch.manual_seed(0)
    widths = (8, 8, 16, 16) if backbone == "edge" else ()
    model = RobustScanner(ModelSpec("tiny", network=NetworkSpec(backbone, hidden_size=16, max_length=9, widths=widths)))
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter *= 4  # so that tokens differ from step to step and from picture to picture
    return model.eval()


def canvases(*widths: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(widths), 48, 160, 3), np.uint8)
    for image, width in zip(images, widths, strict=True):
        image[:, width:] = 0
    return torch.from_numpy(images), torch.tensor(widths, dtype=torch.int32)


@pytest.mark.parametrize(("backbone", "parameters", "gflop"), [("r31", 47_979_996, 30.1), ("edge", 1_672_636, 0.5)])
def test_size_and_cost(backbone: str, parameters: int, gflop: float) -> None:
    model = RobustScanner(ModelSpec(backbone, network=NetworkSpec(backbone))).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    # The LSTM is only counted where it is made of matrix products.
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        model.greedy(*canvases(160))
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=0.02)


def test_greedy_with_carried_state_equals_teacher_forcing_on_what_it_read() -> None:
    model = tiny()
    images, widths = canvases(160, 48, 100, 132)
    logits, tokens = model.greedy(images, widths)
    fed = torch.cat([torch.full((4, 1), model.spec.charset.start_id), tokens[:, :-1]], 1)
    with torch.no_grad():
        forced = model(images, widths, fed)
    assert torch.allclose(logits, forced, atol=1e-4)
    assert len({tuple(row) for row in tokens.tolist()}) > 1


def test_a_word_reads_the_same_alone_and_in_a_batch() -> None:
    model = tiny()
    images, widths = canvases(160, 48, 100)
    together, _ = model.greedy(images, widths)
    for row in range(3):
        alone, _ = model.greedy(images[row : row + 1], widths[row : row + 1])
        assert torch.allclose(alone[0], together[row], atol=1e-4)


def test_attention_ignores_columns_behind_the_word() -> None:
    model = tiny()
    mask = model.mask(torch.tensor([48, 50, 160]), 3, 40)[:, 0].reshape(3, 3, 40)
    assert [int((row[0] == 0).sum()) for row in mask] == [12, 13, 40]
    assert (mask[:, 0] == mask[:, 2]).all()


def test_paddleocr_weights_give_paddleocr_logits() -> None:
    """The golden file was computed by PaddleOCR itself; the weights follow from the parameters' names."""
    meta = json.loads((GOLDEN / "paddleocr.json").read_text(encoding="utf-8"))
    golden = np.load(GOLDEN / "paddleocr.npz")
    model = RobustScanner(ModelSpec("paddleocr")).eval()
    model.load_state_dict(_from_paddle(meta))
    pixels = np.rint((golden["images"] * 0.5 + 0.5) * 255).astype(np.uint8).transpose(0, 2, 3, 1)  # BGR, as the weights
    widths = torch.from_numpy((golden["valid_ratio"] * 160).round().astype(np.int32))
    logits, tokens = model.greedy(torch.from_numpy(np.ascontiguousarray(pixels)), widths)
    assert np.array_equal(tokens.numpy(), golden["tokens"])
    assert np.abs(logits.numpy() - golden["logits"]).max() < meta["outputs"]["tolerance"]


def _from_paddle(meta: dict) -> dict[str, torch.Tensor]:
    renamed = {
        "head.encoder.layer": "encoder",
        "head.decoder.hybrid_decoder.embedding": "decoder.embedding",
        "head.decoder.hybrid_decoder.sequence_layer": "decoder.rnn",
        "head.decoder.position_decoder.embedding": "decoder.position.embedding",
        "head.decoder.position_decoder.position_aware_module": "decoder.position.position_aware",
        "head.decoder.fusion_module.linear_layer": "decoder.fusion",
        "head.decoder.prediction": "decoder.prediction",
    }
    state = {}
    for name, (shape, _) in meta["parameters"].items():
        if name in meta["aliases"]:
            continue
        tensor = torch.from_numpy(fill(name, tuple(shape)).astype(np.float32))
        if "linear_layer.weight" in name or "prediction.weight" in name:
            tensor = tensor.T
        for old, new in renamed.items():
            name = name.replace(old, new) if name.startswith(old) else name
        name = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        state[name] = tensor
        if name.endswith("running_mean"):
            state[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    return state


def test_other_alphabets_and_lengths_need_no_code() -> None:
    spec = ModelSpec("digits", CharsetSpec.of("0123456789"), InputSpec(), NetworkSpec("edge", 16, 5, (8, 8, 16, 16)))
    logits, tokens = RobustScanner(spec).eval().greedy(*canvases(160, 48))
    assert logits.shape == (2, 5, 12)
    assert tokens.shape == (2, 5)


def test_rows_of_convolutions_are_the_same_in_training() -> None:
    """Where they are summed up tap by tap."""
    torch.manual_seed(0)
    rows, picture = RowConvolutions(8, 20), torch.randn(2, 8, 3, 14)
    assert torch.allclose(rows.train()(picture), rows.eval()(picture), atol=1e-5)


def test_ctc_that_has_a_say_reads_pairs_of_columns() -> None:
    spec = ModelSpec("joint", network=NetworkSpec("edge", 16, 5, (8, 8, 16, 16), ctc_weight=0.5))
    model = RobustScanner(spec).eval()
    seen = model.see(torch.zeros(1, 48, 160, 3, dtype=torch.uint8))
    memory = model.remember(seen, torch.tensor([160]), 5)
    assert memory.columns.shape[1] == 40
    assert model.columns(seen, memory).shape[1] == 20
    assert model.column_px == 8
