"""Figures of our Markdown files are those of the result files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .markdown import ALL_PAGES, ROOT, links, paragraphs

RESULTS = ROOT / "benchmarks" / "results"
MODEL_CARD = ROOT / "runtime" / "robustscanner" / "models" / "README.md"
_NUMBER = re.compile(r"(?<![\w./-])\d[\d,]*(?:\.\d+)?(?![\w/-])")  # no part of a name, a path or a version


def test_tables_of_the_report_are_up_to_date() -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.documents import fill
    from benchmarks.report import read_results, to_markdown
    from benchmarks.sections import all_sections

    sections = list(all_sections(read_results(RESULTS)))
    cure = "run benchmarks/report.py as make bench does"
    assert (RESULTS / "report.md").read_text(encoding="utf-8") == to_markdown(sections), cure
    for page in ALL_PAGES:
        text = page.read_text(encoding="utf-8")
        assert fill(text, sections) == text, f"{page}: {cure}"


def test_tables_with_no_section_are_refused() -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.documents import fill
    from benchmarks.sections import Section
    from robustscanner.labels import DataError

    begin, end = "a\n<!-- report: Memory -->\n", "<!-- end -->\nb\n"
    assert fill(f"{begin}old\n{end}", [Section("Memory", points=["new"])]) == f"{begin}- new\n{end}"
    with pytest.raises(DataError, match="no section «Memory»; it has Speed"):
        fill(begin + end, [Section("Speed", points=["x"])])


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_that_name_a_result_file(page: Path) -> None:
    for paragraph, file in _cited(page):
        known = {text for value in _values(json.loads(file.read_text(encoding="utf-8"))) for text in _spellings(value)}
        numbers = {number.replace(",", "") for number in _NUMBER.findall(re.sub(r"\]\(\S+\)", "]", paragraph))}
        assert numbers, f"{page}: {file.name} is cited for no figure"
        assert numbers <= known, f"{page}: {sorted(numbers - known)} not in {file.name}"


def test_some_figures_are_checked() -> None:
    assert any(list(_cited(page)) for page in ALL_PAGES)


def _cited(page: Path) -> Iterator[tuple[str, Path]]:
    """Paragraphs that link a result file, and the file."""
    for paragraph in paragraphs(page):
        for link in re.findall(r"\]\(([^)\s]*results/[\w-]+\.json)\)", paragraph):
            yield paragraph, page.parent / link


def _values(data: Any) -> Iterator[float]:
    if isinstance(data, dict | list):
        for item in data.values() if isinstance(data, dict) else data:
            yield from _values(item)
    elif isinstance(data, int | float):
        yield data


def _spellings(value: float) -> Iterator[str]:
    """As a document may write it: rounded, or in percent."""
    for number in (value, 100 * value, abs(value)):
        yield from (f"{number:.{digits}f}" for digits in range(5))


def test_links_to_results_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("59.9 % before ([f.json](results/f.json))\n\nno figure\n")
    assert [file.name for _, file in _cited(page)] == ["f.json"]
    assert links(page) == ["results/f.json"]
