"""From file bytes in memory to text: latency, throughput and stages of several engines, round by round in turn."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from benchmarks.arguments import CALIB_DATA, counts, engine_parser, session_options
from robustscanner.program import exit_status, whole_number

if TYPE_CHECKING:
    from benchmarks.reader import Reader
    from benchmarks.rounds import Times
    from robustscanner.session import SessionOptions

EPILOG = """examples:
  python benchmarks/latency.py build/edge-int8.engine build/edge-fp32.engine
  python benchmarks/latency.py build/*.engine --batches 1,4,16 --concurrency 1,2,4 -o latency.json
  python benchmarks/latency.py build/edge-int8.engine --soak 10 --spinning

Decoding stops at the end of the word, so the pictures decide the cost: give --crops what you will read.
"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = engine_parser(__doc__, EPILOG)
    parser.add_argument("--crops", type=Path, default=CALIB_DATA, metavar="DIR", help="folder with labels.tsv")
    parser.add_argument(
        "--words", type=whole_number, default=32, metavar="N", help="crops of a round (default: %(default)s)"
    )
    parser.add_argument("--batches", type=counts, default=[1, 8, 32], metavar="N,…", help="default: 1,8,32")
    parser.add_argument(
        "--rounds", type=whole_number, default=12, metavar="N", help="timed rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=30, metavar="S", help="start no new round after so long (default: %(default)s)"
    )
    parser.add_argument("--spinning", action="store_true", help="threads wait busily, as serving does; for one engine")
    parser.add_argument("--concurrency", type=counts, default=[], metavar="N,…", help="callers that share an engine")
    parser.add_argument("--soak", type=float, metavar="MIN", help="also read for so long with each engine")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parsed = parse_arguments(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Opens everything at once, times it, prints tables and writes the figures."""
    from dataclasses import asdict

    from benchmarks.reader import opened
    from benchmarks.result import begin_result, report_progress, write_result
    from benchmarks.roofline import measure_limits
    from benchmarks.sample import draw_crops, load_bytes

    options = _session_options(arguments)
    result = begin_result("latency", __doc__, arguments.output)
    pictures = load_bytes(draw_crops(arguments.crops, arguments.words))
    report_progress("timing the limits of this machine")
    seconds = min(1.0, arguments.seconds)
    limits = measure_limits(options.threads, seconds=seconds)
    with opened(arguments.engines, options, alone=arguments.spinning) as readers:
        engines = measure_batches(readers, pictures, arguments)
    report_progress("timing stages, the limits again, and several callers")
    _add(engines, "stages", _stages(arguments, pictures, options))
    limits = limits.or_better(measure_limits(options.threads, seconds=seconds))
    _add(engines, "roofline", _rooflines(arguments, pictures, limits, engines))
    _add(engines, "concurrency", _concurrency(arguments, pictures, options))
    _add(engines, "soak", _soaks(arguments, pictures, options))
    print_tables(engines)
    result |= {"settings": _settings(arguments, options), "limits": asdict(limits), "engines": engines}
    write_result(arguments.output, result)


def measure_batches(
    readers: "Sequence[Reader]", pictures: Sequence[bytes], arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Facts of each reader, percentiles at each batch size, and what a word costs by its length."""
    from benchmarks.result import report_progress
    from benchmarks.rounds import by_length, interleave, line_through, summarise
    from benchmarks.sample import make_batches

    found: dict[str, dict[str, Any]] = {reader.name: {**reader.facts, "batches": {}} for reader in readers}
    for size in arguments.batches:
        report_progress(f"timing {', '.join(found)} in batches of {size}")
        batches = make_batches(pictures, size)
        reads = {reader.name: reader.read for reader in readers}
        times: Times = interleave(reads, batches, rounds=arguments.rounds, seconds=arguments.seconds)
        for reader in readers:
            found[reader.name]["batches"][str(size)] = summarise(times[reader.name], batch=size)
            if size == 1:
                lengths = by_length(times[reader.name], [reader.read([picture])[0] for picture in pictures])
                found[reader.name] |= {"by_length": lengths, "length_line": line_through(lengths)}
    return found


def print_tables(engines: Mapping[str, Mapping[str, Any]]) -> None:
    """Batches of every engine, then where one word's time goes."""
    width = max(map(len, engines))
    for name, engine in engines.items():
        if engine.get("backend", "onnxruntime") != "onnxruntime":
            print(f"{name:<{width}}  on {engine['device']['name']}")
    print(f"{'':<{width}}  {'batch':>5} {'p50 ms':>9} {'p90 ms':>9} {'p99 ms':>9} {'words/s':>9} {'x limit':>8}")
    for name, engine in engines.items():
        for size, row in engine["batches"].items():
            times = f"{row['p50']:9.2f} {row['p90']:9.2f} {row['p99']:9.2f} {row['words_per_s']:9.1f}"
            limit = engine["roofline"]["limit_ms"] * row["words_per_s"] / 1e3 if engine.get("roofline") else None
            print(f"{name:<{width}}  {size:>5} {times} {f'{1 / limit:8.2f}' if limit else '       –'}")
    for name, engine in engines.items():
        stages = ", ".join(f"{stage} {ms:.2f}" for stage, ms in engine["stages"]["milliseconds"].items())
        print(f"{name:<{width}}  {stages} ms")
    for name, engine in engines.items():
        for callers, row in engine.get("concurrency", {}).items():
            print(f"{name:<{width}}  {callers} callers: {row['words_per_s']:.1f} words/s, p50 {row['p50']:.2f} ms")
        if "soak" in engine:
            row = engine["soak"]
            print(f"{name:<{width}}  {row['minutes']:g} min: {row['drift']:+.1%} time, {row['growth_mib']:+.1f} MiB")


def _session_options(arguments: argparse.Namespace) -> "SessionOptions":
    from robustscanner.errors import EngineError

    if arguments.spinning and len(arguments.engines) > 1:
        raise EngineError("--spinning: threads of several engines would take each other's cores; give one engine")
    return session_options(arguments, spinning=arguments.spinning)


def _settings(arguments: argparse.Namespace, options: "SessionOptions") -> dict[str, Any]:
    names = ("words", "rounds", "seconds", "spinning")
    return {"crops": arguments.crops.name, "threads": options.threads, **{n: getattr(arguments, n) for n in names}}


def _add(engines: dict[str, dict[str, Any]], key: str, found: Mapping[str, object]) -> None:
    for name, value in found.items():
        engines[name][key] = value


def _stages(arguments: argparse.Namespace, pictures: Sequence[bytes], options: "SessionOptions") -> dict[str, Any]:
    from benchmarks.stages import break_down

    return break_down(arguments.engines, pictures, options, rounds=max(2, arguments.rounds // 4))


def _rooflines(
    arguments: argparse.Namespace, pictures: Sequence[bytes], limits: Any, engines: Mapping[str, Any]
) -> dict[str, Any]:
    from benchmarks.roofline import rate
    from benchmarks.workload import count_work, find_graph

    graphs = {path.name: graph for path in arguments.engines if (graph := find_graph(path))}
    words_ms = {name: engines[name]["stages"]["milliseconds"] for name in graphs}
    return {
        name: rate(count_work(graph, pictures), limits, words_ms[name]["encoder"] + words_ms[name]["decoding steps"])
        for name, graph in graphs.items()
    }


def _concurrency(
    arguments: argparse.Namespace, pictures: Sequence[bytes], options: "SessionOptions"
) -> dict[str, dict[str, Any]]:
    """Callers share the threads that were asked for: each call gets an equal part of them."""
    from dataclasses import replace

    from benchmarks.load import call_at_once
    from benchmarks.reader import opened

    found: dict[str, dict[str, Any]] = {}
    for callers in arguments.concurrency:
        shared = replace(options, threads=max(1, options.threads // callers))
        with opened(arguments.engines, shared) as readers:
            for reader in readers:
                row = call_at_once(reader, pictures, callers=callers, seconds=arguments.seconds / 4)
                found.setdefault(reader.name, {})[str(callers)] = row
    return found


def _soaks(arguments: argparse.Namespace, pictures: Sequence[bytes], options: "SessionOptions") -> dict[str, Any]:
    from benchmarks.load import soak
    from benchmarks.reader import opened

    if not arguments.soak:
        return {}
    found = {}
    for path in arguments.engines:  # alone, or memory would be everybody's
        with opened([path], options, alone=True) as (reader,):
            found[reader.name] = soak(reader, pictures, minutes=arguments.soak)
    return found


if __name__ == "__main__":
    sys.exit(main())
