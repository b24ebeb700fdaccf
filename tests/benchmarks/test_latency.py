"""The latency program: what it measures, writes and refuses."""

import json
from pathlib import Path

import pytest

from benchmarks.latency import main
from benchmarks.load import call_at_once
from benchmarks.reader import Reader
from benchmarks.stages import break_down
from robustscanner.engine import file_sha256
from robustscanner.session import SessionOptions

from .conftest import TINY

QUICK = ["--words", "3", "--rounds", "1", "--seconds", "0.05", "--threads", "1"]


def test_figures_of_every_engine(
    crops: Path, int8_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "latency.json"
    arguments = [str(TINY), str(int8_engine), "--crops", str(crops), "--batches", "1,4", "--concurrency", "2"]
    assert main([*arguments, *QUICK, "-o", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["kind"] == "latency"
    assert result["machine"]["cores"] >= 1
    assert list(result["engines"]) == ["tiny.onnx", "int8.engine"]
    fp32, int8 = result["engines"].values()
    assert (fp32["precision"], int8["precision"]) == ("fp32", "int8")
    assert int8["sha256"] == file_sha256(int8_engine / "engine.json")
    assert list(fp32["batches"]) == ["1", "4"]
    assert fp32["batches"]["1"]["p50"] <= fp32["batches"]["1"]["p99"]
    assert fp32["roofline"]["int8_gflop"] == 0 < int8["roofline"]["int8_gflop"]
    assert sum(row["words"] for row in fp32["by_length"].values()) == 3
    assert fp32["concurrency"]["2"]["words_per_s"] > 0
    assert "decoding steps" in capsys.readouterr().out


def test_spinning_is_for_one_engine(crops: Path, int8_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TINY), str(int8_engine), "--crops", str(crops), "--spinning", *QUICK]) == 1
    assert capsys.readouterr().err.startswith("error: --spinning: ")


def test_looks_first_whether_it_can_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["missing.onnx", "-o", str(tmp_path / "missing" / "latency.json")]) == 1
    assert "its folder does not exist" in capsys.readouterr().err


def test_refuses_what_is_no_batch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(TINY), "--batches", "1,0"])
    assert "'0' is not a whole number from 1 on" in capsys.readouterr().err


def test_stages_cover_a_word(crops: Path) -> None:
    pictures = [(crops / name).read_bytes() for name in ("00.png", "11.png")]
    found = break_down([TINY], pictures, SessionOptions(threads=1), rounds=2)["tiny.onnx"]
    assert list(found["milliseconds"]) == ["decode picture", "preprocess", "encoder", "decoding steps", "text"]
    assert found["milliseconds"]["encoder"] > 0
    assert 1 <= found["steps"] <= 13


def test_callers_share_a_reader() -> None:
    seen: set[bytes] = set()

    def read(pictures: list[bytes]) -> list[str]:
        seen.update(pictures)
        return [""]

    row = call_at_once(Reader("x", read, {}), [b"1", b"2"], callers=2, seconds=0.02)
    assert seen == {b"1", b"2"}
    assert row["words_per_s"] > 0


def test_soak_compares_the_ends(crops: Path, tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    arguments = [str(TINY), "--crops", str(crops), "--batches", "1", "--soak", "0.003", *QUICK]
    assert main([*arguments, "-o", str(output)]) == 0
    soak = json.loads(output.read_text())["engines"]["tiny.onnx"]["soak"]
    first, last = soak["windows"][0]["p50"], soak["windows"][-1]["p50"]
    assert soak["drift"] == pytest.approx(last / first - 1, abs=1e-3)
