"""Memory and start-up of the recognize program, as the system sees them."""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from benchmarks.arguments import CALIB_DATA, engine_parser
from robustscanner.program import exit_status

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, str(ROOT / "runtime" / "recognize.py")]
EPILOG = """examples:
  python benchmarks/footprint.py build/edge-int8.engine build/edge-fp32.engine
"""
# A child of its own prints its peak, in KiB on Linux; the parent's own size does not count.
PEAK = """
import os, resource, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = engine_parser(__doc__, EPILOG)
    parser.add_argument("--crops", type=Path, default=CALIB_DATA / "images", metavar="DIR", help="pictures to read")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Prints both figures, and writes them with -o."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, write_result

    result = begin_result("footprint", __doc__, arguments.output)
    threads = [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    result["help_s"] = round(help_seconds(), 3)
    result["engines"] = {
        path.name: engine_facts(path) | {"peak_memory_mib": peak_memory_mib(path, arguments.crops, threads)}
        for path in arguments.engines
    }
    print(f"--help: {result['help_s']} s")
    for name, row in result["engines"].items():
        print(f"{name}: {row['peak_memory_mib']} MiB at most")
    write_result(arguments.output, result)


def help_seconds(runs: int = 9) -> float:
    """Median time until `--help` has been printed."""
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        subprocess.run([*PROGRAM, "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def peak_memory_mib(engine: Path, crops: Path, options: Sequence[str] = ()) -> float:
    """Resident memory at its highest while a folder is read."""
    command = [sys.executable, "-c", PEAK, PROGRAM[1], "--engine", str(engine), str(crops), *options]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return round(int(finished.stderr.split()[-1]) / 1024, 1)


if __name__ == "__main__":
    sys.exit(main())
