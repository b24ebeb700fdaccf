"""The importer: checkpoints of four layouts read what their own projects read, and others are refused in one line."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from convert.graph.export import export
from convert.import_checkpoint import main
from robustscanner.charset import Charset
from robustscanner.preprocess import fitted_width, make_batch
from robustscanner.recognizer import Recognizer
from training.checkpoint import load_checkpoint
from training.model.robustscanner import RobustScanner

from .peers import GOLDEN, PEERS, filled, hollow, meta_of, write

PICTURES = np.load(GOLDEN / "preprocess.npz")


@dataclass(frozen=True)
class Imported:
    """One peer's weights in our model, and what they read."""

    peer: str
    path: Path
    model: RobustScanner
    pictures: list[np.ndarray]  # RGB
    logits: np.ndarray  # from raw pictures
    tokens: np.ndarray


def picture(index: int) -> np.ndarray:
    return np.ascontiguousarray(PICTURES[f"raw_{index:02}"][:, :, ::-1])  # BGR to RGB


@pytest.fixture(scope="module", params=PEERS)
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp(request.param)
    source = write(request.param, filled(request.param), folder)
    output = folder / "r31.safetensors"
    assert main([str(source), "-o", str(output), "--from", request.param.split("_")[0]]) == 0
    source.unlink()  # 190 MB
    model, history = load_checkpoint(output)
    assert history[0]["step"] == "import"
    pictures = [picture(index) for index in PICTURES["batch"]]
    canvases, widths = make_batch(pictures, model.spec.input)
    logits, tokens = model.greedy(torch.from_numpy(canvases), torch.from_numpy(widths))
    return Imported(request.param, output, model, pictures, logits.numpy(), tokens.numpy())


def test_reads_what_the_peer_reads(imported: Imported) -> None:
    meta, golden, spec = meta_of(imported.peer), np.load(GOLDEN / f"{imported.peer}.npz"), imported.model.spec
    pixels = np.rint(golden["images"] * spec.input.scale + spec.input.mean).astype(np.uint8)  # (N, 3, H, W), BGR
    canvases, widths = make_batch(imported.pictures, spec.input)
    assert np.array_equal(canvases, pixels.transpose(0, 2, 3, 1)[..., ::-1])  # so the logits are of the golden images
    assert np.array_equal(widths / 160, golden["valid_ratio"])
    difference = np.abs(imported.logits - golden["logits"]).max()
    print(f"{imported.peer}: largest logit difference {difference:.1e}")
    assert difference < meta["outputs"]["tolerance"]
    assert np.array_equal(imported.tokens, golden["tokens"])


def test_text_and_ids_are_the_peers(imported: Imported) -> None:
    meta, charset = meta_of(imported.peer), imported.model.spec.charset
    config, special = meta["config"], meta["config"]["special_tokens"]
    assert list(charset.tokens) == config["vocabulary"]
    assert (charset.start_id, charset.end_id, charset.pad_id) == (special["start"], special["end"], special["pad"])
    assert charset.unknown_id == special["unknown"]
    ones = np.ones(imported.tokens.shape[1])
    assert [Charset(charset).decode(row, ones)[0] for row in imported.tokens] == meta["outputs"]["texts"]


def test_every_canvas_is_the_peers(imported: Imported) -> None:
    style = "mmocr" if imported.peer.startswith("mmocr") else "paddleocr"
    canvases, widths = make_batch([picture(index) for index in range(15)], imported.model.spec.input)
    assert np.array_equal(widths / 160, PICTURES[f"valid_ratio_{style}"])
    difference = canvases[..., ::-1].astype(int) - PICTURES[f"canvas_{style}"]
    assert np.abs(difference).max() <= 1  # OpenCV versions
    assert fitted_width(136, 323, imported.model.spec.input) == (116 if style == "mmocr" else 112)


def test_the_onnx_graph_reads_the_same(imported: Imported, tmp_path: Path) -> None:
    export(imported.path, tmp_path / "r31.onnx", fold_values=False, force=False)
    with Recognizer(tmp_path / "r31.onnx") as recognizer:
        texts = [reading.text for reading in recognizer.read_batch(imported.pictures)]
    assert texts == meta_of(imported.peer)["outputs"]["texts"]


def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object) -> str:
    """The one line, and that nothing was written."""
    output = tmp_path / "out.safetensors"
    assert main([*map(str, arguments), "-o", str(output)]) == 1
    assert not output.exists()
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_crnn_is_no_robustscanner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {f"cnn.conv{i}.weight": torch.zeros(8, 8) for i in range(7)} | {"rnn.0.rnn.weight_ih_l0": torch.zeros(4, 4)}
    torch.save(state, tmp_path / "crnn.pth")
    assert "not a RobustScanner: 0 of the 28 names of its decoder are among these 8 (cnn.conv0.weight" in refusal(
        capsys, tmp_path, tmp_path / "crnn.pth"
    )
    backbone = {name: torch.zeros(1) for name in meta_of("mmocr_0x")["parameters"] if name.startswith("backbone.")}
    torch.save({"state_dict": backbone | {"decoder.rnn_decoder.weight_ih_l0": torch.zeros(1)}}, tmp_path / "sar.pth")
    assert "not a RobustScanner" in refusal(capsys, tmp_path, tmp_path / "sar.pth")


@pytest.mark.parametrize(
    ("peer", "extra", "names"),
    [
        ("paddleocr", [], ("hybrid_decoder__embedding__weight", "position_decoder__embedding__weight")),
        ("openocr", [], ("hybrid_decoder__embedding__weight", "position_decoder__embedding__weight")),
    ],
)
def test_6000_characters_need_a_dictionary(
    peer: str, extra: list[str], names: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedding, position = names
    source = write(peer, hollow(peer, **{embedding: (6003, 128), position: (27, 128)}), tmp_path)
    line = refusal(capsys, tmp_path, source)
    assert "has 6000 characters, unlike the published ones; name its dictionary: --dict FILE" in line
    (tmp_path / "short.txt").write_text("a\nb\n \n", encoding="utf-8")
    line = refusal(capsys, tmp_path, source, "--dict", tmp_path / "short.txt")
    assert "has 6000 characters, short.txt 3" in line


def test_names_and_shapes_are_listed_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = hollow(
        "mmocr_0x", hybrid_decoder__embedding__weight=(93, 128), position_decoder__embedding__weight=(31, 128)
    )
    line = refusal(capsys, tmp_path, write("mmocr_0x", state, tmp_path))
    assert "MMOCR 0.x's RobustScanner; 182 of another shape" not in line or "…" in line
    assert "backbone.conv1_1.weight is 1 instead of 64 x 3 x 3 x 3" in line
    state["decoder.prediction.waight"] = state.pop("decoder.prediction.weight")
    line = refusal(capsys, tmp_path, write("mmocr_0x", state, tmp_path))
    assert "1 missing: decoder.prediction.weight; 1 left over: decoder.prediction.waight" in line
    assert "(nearest: decoder.prediction.weight)" in line


def test_another_projects_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write("paddleocr", hollow("paddleocr"), tmp_path)
    assert "has the names of PaddleOCR, not of --from mmocr" in refusal(capsys, tmp_path, source, "--from", "mmocr")


def test_paddles_tar_and_its_either_spelling_of_lstms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = hollow("paddleocr", hybrid_decoder__embedding__weight=(103, 128))
    state = {name: array for name, array in state.items() if "_l0" not in name}  # only the cells' names are left
    data = write("paddleocr", state, tmp_path).read_bytes()
    with tarfile.open(tmp_path / "rec.tar", "w") as archive:
        for name, content in (("rec/._best_accuracy.pdparams", b"mac"), ("rec/best_accuracy.pdparams", data)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    line = refusal(capsys, tmp_path, tmp_path / "rec.tar")
    assert "has 100 characters" in line  # all names were found


@pytest.mark.parametrize("name", ["inference.pdiparams", "inference.pdmodel", "inference.json"])
def test_an_exported_paddle_model_says_what_to_give_instead(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(bytes(64))
    assert "give the training checkpoint it was made from, best_accuracy.pdparams" in refusal(
        capsys, tmp_path, tmp_path / name
    )


def test_what_cannot_be_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.pth").touch()
    (tmp_path / "page.pth").write_text("<html>404</html>")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 1}, tmp_path / "bare.pth")
    for peer in PEERS:
        whole = write(peer, hollow(peer), tmp_path).read_bytes()
        (tmp_path / f"half-{peer}").write_bytes(whole[: len(whole) // 2])
    for name, part in {
        "empty.pth": "empty",
        "page.pth": "not a weight file of a kind known here",
        "list.pth": "holds a list, not weights by name",
        "bare.pth": "holds no weights",
        "gone.pth": "No such file",
        **{f"half-{peer}": "truncated or damaged" for peer in PEERS},
    }.items():
        assert part in refusal(capsys, tmp_path, tmp_path / name)


def test_nan_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = filled("openocr")
    state["encoder.bn1_1.bias"][3] = np.nan
    source = write("openocr", state, tmp_path)
    assert "encoder.bn1_1.bias holds NaN" in refusal(capsys, tmp_path, source)


def test_an_existing_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.safetensors").write_text("mine")
    assert main([str(tmp_path / "x.pth"), "-o", str(tmp_path / "mine.safetensors")]) == 1
    assert "--force" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "x.pth"), "-o", str(tmp_path / "mine.pth")])
