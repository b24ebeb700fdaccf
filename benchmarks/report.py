"""Makes one page, and tables for a README, of the results that the other programs wrote."""

import argparse
import base64
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from benchmarks.table import Table, number
from robustscanner.labels import DataError
from robustscanner.output import replacing
from robustscanner.program import exit_status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
EPILOG = """examples:
  python benchmarks/report.py -o benchmarks/results/report.html --markdown benchmarks/results/report.md
"""
_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 0 .8rem 3rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-top: 1px solid #ddd; padding-top: 1rem; }
img { width: 100%; max-width: 34rem; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; white-space: nowrap; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e4e4e4; text-align: right; }
th:first-child { text-align: left; }
p.about { color: #666; font-size: .85rem; overflow-wrap: anywhere; }
"""

Result = Mapping[str, Any]  # of one program, as it wrote it
Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Section:
    """One question, answered by a table, a picture or both."""

    title: str
    text: str  # how to read it
    table: Table | None = None
    figure: "Figure | None" = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to mend."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS, metavar="DIR", help="with the .json files")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.html")
    parser.add_argument("--markdown", type=Path, metavar="FILE.md", help="also write the tables there")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: write_report(parsed.results, parsed.output, parsed.markdown))


def write_report(folder: Path, page: Path, markdown: Path | None) -> None:
    """Reads all results of a folder and writes page and tables.

    Raises:
        DataError: no results there.
        OutputError: a file cannot be written.
    """
    results = read_results(folder)
    chapters = {name: list(SECTIONS[result["kind"]](result)) for name, result in results.items()}
    with replacing(page, force=True) as temporary:
        temporary.write_text(to_html(results, chapters), encoding="utf-8")
    if markdown:
        with replacing(markdown, force=True) as temporary:
            temporary.write_text(to_markdown(chapters), encoding="utf-8")


def read_results(folder: Path) -> dict[str, Result]:
    """File name -> content, of those that say what kind they are; in the order of the page.

    Raises:
        DataError: there are none.
    """
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    kinds = list(SECTIONS)
    known = {name: result for name, result in found.items() if result.get("kind") in kinds}
    if not known:
        raise DataError(f"{folder}: holds no results; make some with the other programs of benchmarks/, or make bench")
    return dict(sorted(known.items(), key=lambda item: kinds.index(item[1]["kind"])))


def to_html(results: Mapping[str, Result], chapters: Mapping[str, Sequence[Section]]) -> str:
    """The page: everything is in it, nothing is fetched."""
    parts = []
    for name, sections in chapters.items():
        parts += [_section_html(section) for section in sections]
        parts.append(f'<p class="about">{escape(name)}.json: {escape(describe_machine(results[name]))}</p>\n')
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = "RobustScanner edge kit: benchmarks"
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{title}</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n{''.join(parts)}</body></html>\n"
    )


def to_markdown(chapters: Mapping[str, Sequence[Section]]) -> str:
    """The tables alone."""
    return "\n".join(
        f"### {section.title} ({name}.json)\n\n{section.table.to_markdown()}"
        for name, sections in chapters.items()
        for section in sections
        if section.table
    )


def describe_machine(result: Result) -> str:
    """Where and with what a result was measured, in one sentence."""
    machine = result.get("machine", {})
    facts = [machine.get("processor"), f"{machine['cores']} cores" if "cores" in machine else None]
    facts += [machine.get(key) for key in ("gpu", "power_mode", "governor")]
    facts += [
        f"{name} {version}" for name, version in {**result.get("versions", {}), **machine.get("versions", {})}.items()
    ]
    facts.append(f"commit {machine['commit']}" if "commit" in machine else None)
    return ", ".join(str(fact) for fact in facts if fact)


def compare_sections(result: Result) -> Iterator[Section]:
    """Peers."""
    from benchmarks.charts import latency_against_accuracy

    readers: Rows = result["readers"]
    unit = next(iter(readers.values()))["latency_ms"]["p50"]
    sets = list(next(iter(readers.values()))["sets"])
    rows = [
        [
            name,
            *(number(row["latency_ms"][key], 2) for key in ("p50", "p90")),
            number(row["latency_ms"]["p50"] / unit, 2),
            *(_accuracy(row["sets"][folder]) for folder in sets),
        ]
        for name, row in readers.items()
    ]
    table = Table(["", "p50 ms", "p90 ms", "ratio", *(f"{name}, %" for name in sets)], rows)
    text = "One word at a time, from the bytes of its file to text; accuracy with its 95 % interval. All in one run."
    yield Section("Latency against accuracy", text, table, latency_against_accuracy(readers))


def latency_sections(result: Result) -> Iterator[Section]:
    """Our engines in detail."""
    from benchmarks.charts import batch_curve, cost_by_length, stage_breakdown

    engines: Rows = result["engines"]
    limits = result["limits"]
    text = (
        "From the bytes of files to texts. «x limit»: how many times longer a word takes than its arithmetic would at "
        "the best rates this machine showed: a large convolution with "
        f"{number(limits['convolution_fp32_gflops'], 0)} GFLOP/s in FP32 and "
        f"{number(limits['convolution_int8_gflops'], 0)} in INT8, a matrix product with "
        f"{number(limits['gemm_fp32_gflops'], 0)}, a copy with {number(limits['copy_gbytes_s'])} GB/s."
    )
    yield Section("Batches", text, _batch_table(engines), batch_curve(engines))
    yield Section("Where the time goes", "One word.", _stage_table(engines), stage_breakdown(engines))
    yield Section("Near the limit", "Encoder and decoding steps of one word alone.", _roofline_table(engines))
    timed = {name: row for name, row in engines.items() if row.get("by_length")}
    if timed:
        yield Section("Cost by text length", "Decoding stops behind the last character.", None, cost_by_length(timed))
    if any("concurrency" in row for row in engines.values()):
        yield Section("Several callers", "They share one engine and the cores.", _concurrency_table(engines))
    if any("soak" in row for row in engines.values()):
        yield Section("For minutes", "The last eighth against the first.", _soak_table(engines))


def accuracy_sections(result: Result) -> Iterator[Section]:
    """Our engines against one of them."""
    engines: Rows = result["engines"]
    sets = list(next(iter(engines.values()))["sets"])
    rows = []
    for name, row in engines.items():
        against = row.get("against_reference")
        split = f"{against['only_second']} / {against['only_first']}" if against else "–"
        difference = [number(against["points"], 2), split, f"{against['p']:.2g}"] if against else ["–"] * 3
        rows.append([name, *(_accuracy(row["sets"][folder]) for folder in sets), *difference])
    header = ["", *(f"{name}, %" for name in sets), "points", "won / lost", "p"]
    text = f"Words right, with 95 % intervals; then against {result['reference']}, word by word (McNemar's exact test)."
    yield Section("Accuracy", text, Table(header, rows))


def sensitivity_sections(result: Result) -> Iterator[Section]:
    """What 8 bits do to each layer."""
    from convert.sensitivity_chart import draw, short_name

    def columns(row: Mapping[str, float]) -> list[str]:
        return [number(row["drop_points"], 2), number(100 * row["agreement"]), f"{row['divergence']:.2g}"]

    rows = [[short_name(r["layer"]), *columns(r["alone"]), *columns(r["restored"])] for r in result["layers"]]
    rows.append(["all in 8 bits", *columns(result["all_int8"]), "", "", ""])
    measures = ["drop, points", "alike, %", "divergence"]
    least = result["least"]
    kept = ", ".join(map(short_name, least["float_layers"])) or "nothing"
    text = (
        f"Each layer alone in 8 bits, then all but it, on {result['words']} words. "
        f"To lose at most {least['max_drop_points']:g} points, keep in FP32: {kept} (red)."
    )
    table = Table(["", *measures, *measures], rows)
    yield Section(f"INT8, layer by layer: {result['model']}", text, table, draw(result))
    methods = [[name, *columns(row)] for name, row in result["methods"].items()]
    yield Section(f"Ranges: {result['model']}", "All layers in 8 bits.", Table(["", *measures], methods))


SECTIONS: dict[str, Callable[[Result], Iterator[Section]]] = {
    "compare": compare_sections,
    "latency": latency_sections,
    "accuracy": accuracy_sections,
    "sensitivity": sensitivity_sections,
}


def _batch_table(engines: Rows) -> Table:
    header = ["", "batch", "p50 ms", "p90 ms", "p99 ms", "words/s", "x limit"]
    rows = []
    for name, engine in engines.items():
        limit = engine["roofline"]["limit_ms"] if "roofline" in engine else None
        for size, row in engine["batches"].items():
            times = [number(row[key], 2) for key in ("p50", "p90", "p99")]
            over = number(1e3 / row["words_per_s"] / limit) if limit else "–"
            rows.append([name, size, *times, number(row["words_per_s"]), over])
    return Table(header, rows)


def _stage_table(engines: Rows) -> Table:
    stages = list(dict.fromkeys(stage for row in engines.values() for stage in row["stages"]["milliseconds"]))
    rows = []
    for name, row in engines.items():
        parts = [number(row["stages"]["milliseconds"].get(stage), 2) for stage in stages]
        rows.append([name, *parts, number(row["stages"]["steps"])])
    return Table(["ms", *stages, "steps"], rows)


def _roofline_table(engines: Rows) -> Table:
    keys = {"int8_gflop": "INT8 GFLOP", "convolution_gflop": "FP32 convolutions", "product_gflop": "FP32 products"}
    keys |= {"mbytes": "MB", "limit_ms": "limit ms"}
    rows = [
        [name, *(number(row["roofline"][key], 2) for key in keys), number(row["roofline"]["times_limit"])]
        for name, row in engines.items()
        if "roofline" in row
    ]
    return Table(["", *keys.values(), "x limit"], rows)


def _concurrency_table(engines: Rows) -> Table:
    rows = [
        [name, callers, number(row["words_per_s"]), number(row["p50"], 2), number(row["p99"], 2)]
        for name, engine in engines.items()
        for callers, row in engine.get("concurrency", {}).items()
    ]
    return Table(["", "callers", "words/s", "p50 ms", "p99 ms"], rows)


def _soak_table(engines: Rows) -> Table:
    rows = [
        [name, number(row["minutes"]), f"{100 * row['drift']:+.1f}", f"{row['growth_mib']:+.1f}"]
        for name, engine in engines.items()
        if (row := engine.get("soak"))
    ]
    return Table(["", "minutes", "time, %", "memory, MiB"], rows)


def _section_html(section: Section) -> str:
    from benchmarks.charts import to_svg

    parts = [f"<h2>{escape(section.title)}</h2>\n<p>{escape(section.text)}</p>\n"]
    if section.figure is not None:
        data = base64.b64encode(to_svg(section.figure).encode()).decode()
        parts.append(f'<img alt="{escape(section.title)}" src="data:image/svg+xml;base64,{data}">\n')
    if section.table:
        parts.append(section.table.to_html())
    return "".join(parts)


def _accuracy(row: Mapping[str, float]) -> str:
    return f"{100 * row['accuracy']:.1f} ({100 * row['low']:.1f}–{100 * row['high']:.1f})"


if __name__ == "__main__":
    sys.exit(main())
