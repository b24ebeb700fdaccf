"""The page: from results of the other programs, with nothing to fetch."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import compare, latency, report
from benchmarks.table import Table, number
from convert import sensitivity

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
    assert sensitivity.main(arguments) == 0
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
    for title in ("Latency against accuracy", "Batches", "Where the time goes", "Cost by text length", "Accuracy"):
        assert f"<h2>{title}</h2>" in html
    assert "INT8, layer by layer: tiny" in html
    assert html.count("<img ") == 5
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    tables = markdown.read_text(encoding="utf-8")
    assert "| int8.engine |" in tables
    assert "### Batches (l.json)" in tables


def test_same_results_same_page(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pages = [tmp_path / "1.html", tmp_path / "2.html"]
    for page in pages:
        assert report.main([str(results), "-o", str(page)]) == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path), "-o", str(tmp_path / "report.html")]) == 1
    assert "holds no results" in capsys.readouterr().err


def test_tables() -> None:
    table = Table(["", "a|b"], [["<x>", "1"]])
    assert table.to_markdown() == "|  | a∣b |\n| --- | ---: |\n| <x> | 1 |\n"
    assert "<th>&lt;x&gt;</th><td>1</td>" in table.to_html()
    assert (number(1234.56), number(None), number(0.126, 2)) == ("1 234.6", "–", "0.13")
