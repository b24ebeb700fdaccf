"""The transcript of the gate: a refusal, a repair, and what the engine remembers."""

import json
from pathlib import Path

import pytest

from benchmarks.gate_runs import METHODS, main

from .conftest import TINY


def test_refuses_and_repairs(crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "gate.json"
    # Two of twelve words may go: an untrained model reads another text for a last bit, which differs between CPUs.
    assert main([str(TINY), "--calib-data", str(crops), "--max-drop", "20", "-o", str(output)]) == 0
    result = json.loads(output.read_text())
    *_, refused, repaired = result["runs"]
    assert (refused["status"], repaired["status"]) == (1, 0)
    assert refused["output"][0].startswith("error: --max-drop 20: int8 loses ")
    assert repaired["command"].endswith("--repair -o gate.engine")
    assert result["history"][0]["restored"]
    assert str(tmp_path) not in json.dumps(repaired["output"])
    assert "exit status 1" in capsys.readouterr().out


def test_nothing_to_refuse(crops: Path, tmp_path: Path) -> None:
    output = tmp_path / "gate.json"
    assert main([str(TINY), "--calib-data", str(crops), "--max-drop", "100", "-o", str(output)]) == 0
    result = json.loads(output.read_text())
    assert [run["status"] for run in result["runs"]] == [0] * len(METHODS)
    assert result["history"][0]["restored"] == []
