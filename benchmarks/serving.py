"""The server under load: offered requests a second against latency, with batches and without."""

import argparse
import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

import numpy as np

from benchmarks.arguments import CALIB_DATA, counts, engine_parser
from robustscanner.program import exit_status, whole_number

ROOT = Path(__file__).parents[1]
EPILOG = """examples:
  python benchmarks/serving.py build/small-int8.engine -o benchmarks/results/serving.json
"""
CALLERS = 64  # requests under way at most; those that come while all are busy wait, and that counts
WAYS = {"batches": [], "one by one": ["--max-batch", "1", "--max-wait-ms", "0"]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = engine_parser(__doc__, EPILOG)
    parser.add_argument("--rates", type=counts, default=[10, 40, 80, 160, 320], metavar="N,…", help="requests a second")
    parser.add_argument("--seconds", type=whole_number, default=10, metavar="S", help="of each rate")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Each rate in turn with both servers, which run side by side and are asked one after the other."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, write_result
    from benchmarks.sample import draw_crops, load_bytes

    result = begin_result("serving", __doc__, arguments.output) | {"seconds": arguments.seconds, "engines": {}}
    pictures = load_bytes(draw_crops(CALIB_DATA, 64))
    for path in arguments.engines:
        rows = []
        with serving(path, []) as batching, serving(path, WAYS["one by one"]) as single:
            ports = dict(zip(WAYS, (batching, single), strict=True))
            for rate in arguments.rates:
                row = {"offered_per_s": rate} | {
                    way: offer(port, pictures, rate, arguments.seconds) for way, port in ports.items()
                }
                print(path.name, row)
                rows.append(row)
        result["engines"][path.name] = engine_facts(path) | {"rates": rows}
    write_result(arguments.output, result)


@contextmanager
def serving(engine: Path, options: Sequence[str]) -> Iterator[int]:
    """A server of its own process, and its port."""
    command = [sys.executable, str(ROOT / "runtime" / "serve.py"), "--engine", str(engine), "--port", "0", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.terminate()


def offer(port: int, pictures: Sequence[bytes], rate: int, seconds: int) -> dict[str, Any]:
    """Requests at even distances, whether or not the ones before are answered; a word's time begins when it is due."""
    local, begin = threading.local(), time.perf_counter() + 0.1

    def ask(index: int) -> tuple[int, float]:
        due = begin + index / rate
        time.sleep(max(0, due - time.perf_counter()))
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        local.connection.request("POST", "/v1/read", pictures[index % len(pictures)], {"Content-Type": "image/jpeg"})
        answer = local.connection.getresponse()
        answer.read()
        return answer.status, 1e3 * (time.perf_counter() - due)

    with ThreadPoolExecutor(CALLERS) as callers:
        answers = list(callers.map(ask, range(rate * seconds)))
    passed = time.perf_counter() - begin
    times = [ms for status, ms in answers if status == 200]
    p50, p99 = np.percentile(times or [0], [50, 99])
    refused = sum(status == 429 for status, _ in answers)
    return {
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "words_per_s": round(len(times) / passed, 1),
        "refused": refused,
        "failed": len(answers) - len(times) - refused,
    }


if __name__ == "__main__":
    sys.exit(main())
