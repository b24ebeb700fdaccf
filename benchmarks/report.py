"""Makes one page of the results that the other programs wrote, and brings the tables of other documents up to date."""

import argparse
import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from robustscanner.labels import DataError
from robustscanner.output import replacing
from robustscanner.program import exit_status

if TYPE_CHECKING:
    from benchmarks.sections import Result, Section

RESULTS = Path(__file__).parent / "results"
TITLE = "RobustScanner edge kit: benchmarks"
EPILOG = """examples:
  python benchmarks/report.py -o benchmarks/results/report.html --markdown benchmarks/results/report.md
  python benchmarks/report.py -o build/report.html --update README.md docs/*.md

--update replaces what stands between <!-- report: TITLE OF A SECTION --> and <!-- end -->.
"""
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 0 auto; padding: 0 1rem 3rem; color: #1c2024;
  background: #fff; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 1.6rem 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .4rem; border-top: 1px solid #d9dde1; padding-top: 1.2rem; }
p, ul { margin: .5rem 0; } ul { padding-left: 1.2rem; }
img { display: block; width: 100%; max-width: 31rem; height: auto; margin: .8rem 0; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .85rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .45rem; border-bottom: 1px solid #e6e9ec; text-align: right; }
thead th { color: #57606a; font-weight: 600; vertical-align: bottom; white-space: normal; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; padding-left: 0; }
tbody th { font-weight: 500; white-space: normal; min-width: 6.5rem; }
td small { display: block; color: #57606a; font-size: .75rem; }
summary { cursor: pointer; color: #2c6fbb; }
pre { background: #f5f7f9; padding: .7rem .8rem; font-size: .78rem; line-height: 1.45; white-space: pre-wrap; }
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS, metavar="DIR", help="with the .json files")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.html")
    parser.add_argument("--markdown", type=Path, metavar="FILE.md", help="also write the tables there")
    parser.add_argument("--update", type=Path, nargs="+", default=[], metavar="FILE.md", help="put new tables there")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: write_report(parsed.results, parsed.output, parsed.markdown, parsed.update))


def write_report(folder: Path, page: Path, markdown: Path | None, documents: Sequence[Path] = ()) -> None:
    """Reads all results of a folder and writes page and tables.

    Raises:
        DataError: no results there, or a document asks for a section that is not in them.
        OutputError: a file cannot be written.
    """
    from benchmarks.documents import fill
    from benchmarks.sections import all_sections

    sections = list(all_sections(read_results(folder)))
    updated = {path: fill(path.read_text(encoding="utf-8"), sections) for path in documents}
    with replacing(page, force=True) as temporary:
        temporary.write_text(to_html(sections), encoding="utf-8")
    if markdown:
        with replacing(markdown, force=True) as temporary:
            temporary.write_text(to_markdown(sections), encoding="utf-8")
    for path, text in updated.items():
        with replacing(path, force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def read_results(folder: Path) -> "dict[str, list[Result]]":
    """Kind -> results, each with its file's name, of the kinds that the page has a place for.

    Raises:
        DataError: there are none.
    """
    from benchmarks.sections import KINDS

    found: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in KINDS}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("kind") in found:
            found[result["kind"]].append(result | {"file": path.name})
    if not any(found.values()):
        raise DataError(f"{folder}: holds no results; make some with the other programs of benchmarks/, or make bench")
    return found


def to_html(sections: "Iterable[Section]") -> str:
    """The page: everything is in it, nothing is fetched."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{TITLE}</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{TITLE}</h1>\n{''.join(map(_section_html, sections))}</body></html>\n"
    )


def to_markdown(sections: "Iterable[Section]") -> str:
    """The same without pictures."""
    told = (section for section in sections if section.table or section.points or section.transcript)
    return "\n".join(map(_section_markdown, told))


def _section_html(section: "Section") -> str:
    from benchmarks.charts import to_svg

    parts = [f"<h2>{escape(section.title)}</h2>\n"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>\n")
    if section.points:
        parts.append(f"<ul>{''.join(f'<li>{escape(point)}</li>' for point in section.points)}</ul>\n")
    if section.figure is not None:
        data = base64.b64encode(to_svg(section.figure).encode()).decode()
        parts.append(f'<img alt="{escape(section.title)}" src="data:image/svg+xml;base64,{data}">\n')
    if section.table:
        table = section.table.to_html()
        parts.append(f"<details><summary>All figures</summary>{table}</details>\n" if section.folded else table)
    if section.transcript:
        parts.append(f"<pre>{escape(section.transcript)}</pre>\n")
    return "".join(parts)


def _section_markdown(section: "Section") -> str:
    parts = [f"### {section.title}\n"]
    if section.text:
        parts.append(f"{section.text}\n")
    if section.points:
        parts.append("".join(f"- {point}\n" for point in section.points))
    if section.table:
        parts.append(section.table.to_markdown())
    if section.transcript:
        parts.append(f"```\n{section.transcript}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
