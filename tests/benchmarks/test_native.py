"""C++ beside Python, with programs that stand in for both."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.native import BUILDS, NativeError, compare, main

from .conftest import TINY

READER = "import sys\nfor _ in sys.stdin: print('[{}, {}]', flush=True)"


def reader(first: float, second: float) -> list[str]:
    return [sys.executable, "-c", READER.format(first, second)]


def test_the_first_round_warms_up() -> None:
    slow_start = "import sys\nfor n, _ in enumerate(sys.stdin): print([1 if n else 99], flush=True)"
    found = compare({"a": [sys.executable, "-c", slow_start], "b": reader(2, 4)}, rounds=3, seconds=60)
    assert found["a"]["latency_ms"]["p90"] == 1
    assert found["a"]["latency_ms"]["runs"] == 3
    assert found["b"]["latency_ms"]["p50"] == 3
    assert found["b"]["latency_ms"]["runs"] == 6
    assert 1 < found["a"]["peak_memory_mib"] < 200
    assert found["a"]["mapped_libraries"] > 0


def test_memory_is_the_readers_own() -> None:
    large = "x = b'1' * (200 << 20)\n" + READER.format(1, 1)
    found = compare({"large": [sys.executable, "-c", large], "small": reader(1, 1)}, rounds=1, seconds=0)
    assert found["large"]["peak_memory_mib"] - found["small"]["peak_memory_mib"] == pytest.approx(200, abs=10)


def test_a_reader_that_stops_is_named() -> None:
    with pytest.raises(NativeError, match=r"^b stopped"):
        compare({"a": reader(1, 1), "b": [sys.executable, "-c", "input()"]}, rounds=2, seconds=60)


def test_what_is_not_built_is_said(crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(TINY), "--data", str(crops), "--builds", str(tmp_path)]) == 1
    assert f"{tmp_path}/pixels/bin/bench: not built; run cmake --preset pixels" in capsys.readouterr().err


@pytest.mark.skipif(
    not all((BUILDS / preset / "bin" / "bench").exists() for preset in ("release", "pixels")),
    reason="release and pixels are not built",
)
def test_three_readers_in_one_run(crops: Path, tmp_path: Path) -> None:
    output = tmp_path / "native.json"
    assert (
        main([str(TINY), "--data", str(crops), "--words", "2", "--rounds", "2", "--threads", "1", "-o", str(output)])
        == 0
    )
    readers = json.loads(output.read_text())["engines"]["tiny.onnx"]["readers"]
    assert list(readers) == ["C++, without picture files", "C++", "Python"]
    for row in readers.values():
        assert row["latency_ms"]["runs"] == 4
        assert row["latency_ms"]["p50"] > 0
    small, large, python = (" ".join(row["libraries"]) for row in readers.values())
    assert "imgcodecs" in large
    assert "imgcodecs" not in small
    assert "cv2" in python
