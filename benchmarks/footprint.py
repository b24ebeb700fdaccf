"""Memory and start-up of the recognize program, as the system sees them."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, str(ROOT / "runtime" / "recognize.py")]
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


def main() -> int:
    """Prints both figures, and writes them with -o."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", type=Path, nargs="+", metavar="ENGINE", help="NAME.engine or NAME.onnx")
    parser.add_argument(
        "--crops", type=Path, default=ROOT / "calib_data" / "images", metavar="DIR", help="pictures to read"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write the figures there")
    arguments = parser.parse_args()
    from benchmarks.machine import describe

    figures: dict[str, object] = {"help_s": round(help_seconds(), 3)}
    figures["peak_memory_mib"] = {path.name: peak_memory_mib(path, arguments.crops) for path in arguments.engines}
    print(json.dumps(figures, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps({"what": __doc__, "machine": describe(), **figures}, indent=2) + "\n")
    return 0


def help_seconds(runs: int = 9) -> float:
    """Median time until `--help` has been printed."""
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        subprocess.run([*PROGRAM, "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def peak_memory_mib(engine: Path, crops: Path) -> float:
    """Resident memory at its highest while a folder is read."""
    command = [sys.executable, "-c", PEAK, PROGRAM[1], "--engine", str(engine), str(crops)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return round(int(finished.stderr.split()[-1]) / 1024, 1)


if __name__ == "__main__":
    sys.exit(main())
