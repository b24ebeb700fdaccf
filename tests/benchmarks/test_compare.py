"""Us and peers in one run."""

import json
from pathlib import Path

import pytest

from benchmarks import compare, peers
from benchmarks.compare import main
from benchmarks.reader import Reader

from .conftest import TINY

QUICK = ["--timed-words", "2", "--rounds", "1", "--seconds", "0", "--threads", "1"]


def open_fake(threads: int) -> Reader:
    return Reader("fake", lambda pictures: ["?" for _ in pictures], {"wheel": f"fake for {threads}"}, most_words=5)


def open_missing(threads: int) -> Reader:
    raise ImportError("No module named 'missing'")


def open_broken(threads: int) -> Reader:
    raise RuntimeError("no kernel for this CPU")


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: peers.Peer(f"{name} itself", "missing", open_missing) for name in compare.DEFAULT_PEERS}
    found |= {"ppocrv6": peers.Peer("x", "fake", open_fake), "openvino": peers.Peer("y", "broken", open_broken)}
    monkeypatch.setattr(peers, "PEERS", found)


def test_same_crops_for_all(crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "compare.json"
    assert main([str(TINY), "--data", str(crops), *QUICK, "-o", str(output)]) == 0
    result = json.loads(output.read_text())
    assert list(result["readers"]) == ["tiny.onnx", "fake"]
    ours, fake = result["readers"].values()
    assert (ours["sets"][crops.name]["accuracy"], fake["sets"][crops.name]["accuracy"]) == (1, 0)
    assert 0 < fake["sets"][crops.name]["words"] <= 5 < ours["sets"][crops.name]["words"]
    assert fake["wheel"] == "fake for 1"
    assert fake["latency_ms"]["p50"] < ours["latency_ms"]["p50"]
    assert list(result["missing"]) == ["ppocrv4 itself", "y", "eager itself"]
    assert "no kernel for this CPU" in result["missing"]["y"]
    assert "left out: ppocrv4 needs missing" in capsys.readouterr().err


def test_a_peer_that_was_asked_for_must_be_there(crops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TINY), "--data", str(crops), "--peer", "ppocrv4", *QUICK]) == 1
    assert "ppocrv4 needs missing" in capsys.readouterr().err


def test_eager_decoding_reads_the_same(crops: Path) -> None:
    pytest.importorskip("torch")
    from benchmarks.eager import open_eager
    from benchmarks.sample import draw_crops
    from robustscanner.charset import Charset
    from robustscanner.preprocess import load_image, make_batch
    from robustscanner.recognizer import Recognizer

    images = [load_image(crop.path) for crop in draw_crops(crops)]
    with Recognizer(TINY) as recognizer:
        expected, spec = [reading.text for reading in recognizer.read_batch(images)], recognizer.spec
    run = open_eager(TINY.with_suffix(".safetensors"), threads=1)
    tokens, scores = run(*make_batch(images, spec.input))
    charset = Charset(spec.charset)
    assert [charset.decode(*row)[0] for row in zip(tokens, scores, strict=True)] == expected
