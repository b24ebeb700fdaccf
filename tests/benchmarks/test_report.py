"""The page: from results of the other programs, with nothing to fetch."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import compare, gate_runs, latency, layer_sensitivity, report
from benchmarks.table import Table, number

from .conftest import TINY


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, crops: Path, int8_engine: Path) -> Path:
    """What the programs write themselves, so that page and programs cannot drift apart."""
    from benchmarks import accuracy

    folder, engines, data = tmp_path_factory.mktemp("results"), [str(TINY), str(int8_engine)], str(crops)
    quick = ["--rounds", "1", "--seconds", "0", "--threads", "1"]
    assert latency.main([*engines, "--crops", data, "--words", "8", *quick, "-o", str(folder / "l.json")]) == 0
    assert accuracy.main([*engines, "--data", data, "-o", str(folder / "a.json")]) == 0
    arguments = [str(TINY), "--calib-data", data, "--crops", "4", "-o", str(folder / "s.json")]
    assert layer_sensitivity.main(arguments) == 0
    assert gate_runs.main([str(TINY), "--calib-data", data, "--max-drop", "0", "-o", str(folder / "g.json")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "DEFAULT_PEERS", ())
        assert compare.main([*engines, "--data", data, *quick, "-o", str(folder / "c.json")]) == 0
    (folder / "footprint.json").write_text(json.dumps({"what": "of another kind"}))
    return folder


def test_page_holds_everything(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page, markdown = tmp_path / "report.html", tmp_path / "report.md"
    assert report.main([str(results), "-o", str(page), "--markdown", str(markdown)]) == 0
    html = page.read_text(encoding="utf-8")
    titles = re.findall("<h2>(.*)</h2>", html)
    assert titles[:4] == ["In short", "Beside what people use today", "Latency", "Where the time goes"]
    assert titles[-4:] == [
        "INT8: ways to choose ranges",
        "INT8, layer by layer: tiny",
        "The accuracy gate at work",
        "Measured on",
    ]
    assert html.count("<img ") == 5
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "--repair -o gate.engine" in html
    tables = markdown.read_text(encoding="utf-8")
    assert "| tiny INT8 |" in tables
    assert "### Latency\n" in tables


def test_same_results_same_page(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pages = [tmp_path / "1.html", tmp_path / "2.html"]
    for page in pages:
        assert report.main([str(results), "-o", str(page)]) == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path), "-o", str(tmp_path / "report.html")]) == 1
    assert "holds no results" in capsys.readouterr().err


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    facts = {"model": "edge", "precision": "int8", "backend": "onnxruntime", "peak_memory_mib": 100.0}
    result = {"kind": "footprint", "help_s": 0.1, "engines": {"a.engine": facts, "b.engine": facts}}
    (tmp_path / "f.json").write_text(json.dumps(result))
    page = tmp_path / "report.html"
    assert report.main([str(tmp_path), "-o", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*)</h2>", html) == ["In short", "Memory", "Measured on"]
    assert "<th>a.engine</th>" in html  # two engines of one name keep their files'


def test_missing_peers_are_named() -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.sections import compare_sections

    score = {"words": 9, "accuracy": 0.5, "low": 0.4, "high": 0.6}
    ours = {"latency_ms": {"p50": 2.0, "p90": 3.0}, "sets": {"set": score}}
    peer = {"latency_ms": {"p50": 5.0, "p90": 6.0}, "sets": {"set": score | {"words": 4}}, "wheel": "p 1.0"}
    result = {"threads": 1, "readers": {"us": ours, "peer": peer}, "missing": {"gone": "gone needs a wheel"}}
    (section,) = compare_sections(result)
    assert section.table is not None
    assert section.table.rows[1] == ["peer", "5.0", "6.0", "2.5", "50.0 (40.0–60.0, 4 words)"]
    assert section.table.rows[2][:2] == ["gone", "not run"]
    assert "Left out: gone needs a wheel" in section.points


def test_every_result_says_what_it_ran_on(results: Path) -> None:
    for name in ("l", "a", "s", "g", "c"):
        assert json.loads((results / f"{name}.json").read_text())["machine"]["cores"] >= 1


def test_tables() -> None:
    table = Table(["", "a|b"], [["<x>", "1"]])
    assert table.to_markdown() == "|  | a∣b |\n| --- | ---: |\n| <x> | 1 |\n"
    assert "<th>&lt;x&gt;</th><td>1</td>" in table.to_html()
    assert "<td>78.8<small>76–81</small></td>" in Table(["", "a"], [["x", "78.8 (76–81)"]]).to_html()
    assert (number(1234.56), number(None), number(0.126, 2)) == ("1 234.6", "–", "0.13")
