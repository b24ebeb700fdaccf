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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

import numpy as np

from benchmarks.arguments import CALIB_DATA, counts, engine_parser
from benchmarks.load import WINDOWS, resident_mib
from robustscanner.cpu import available_cores
from robustscanner.errors import RobustScannerError
from robustscanner.program import exit_status, whole_number

ROOT = Path(__file__).parents[1]
EPILOG = """examples:
  python benchmarks/serving.py build/small-int8.engine --peers ppocrv6 -o benchmarks/results/serving.json

All servers run side by side and are asked one after the other, so that a busy moment hurts all of them. A rate that a
server cannot keep up with shows what it can do at most: `words_per_s`.
"""
SOAK_PER_S = 10  # pictures
CALLERS = 64  # requests under way at most; those that come while all are busy wait, and that counts
WAYS = {
    "batches": [],
    "one by one": ["--max-batch", "1", "--max-wait-ms", "0"],
    "one session, batches": ["--workers", "1"],
    "one session, one by one": ["--workers", "1", "--max-batch", "1", "--max-wait-ms", "0"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = engine_parser(__doc__, EPILOG)
    parser.add_argument("--rates", type=counts, default=[10, 40, 80, 160, 320], metavar="N,…", help="requests a second")
    parser.add_argument("--peers", nargs="+", default=[], metavar="NAME", help="of peers.py, behind HTTP too")
    parser.add_argument("--soak", type=whole_number, metavar="MINUTES", help="then a steady load; how memory grows")
    parser.add_argument("--seconds", type=whole_number, default=10, metavar="S", help="of each rate")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Each rate with every server in turn."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, write_result
    from benchmarks.sample import draw_crops, load_bytes

    result = begin_result("serving", __doc__, arguments.output) | {"seconds": arguments.seconds, "engines": {}}
    pictures = load_bytes(draw_crops(CALIB_DATA, 64))
    for path in arguments.engines:
        rows = []
        with ExitStack() as stack:
            servers = {way: stack.enter_context(listening(ours(path, options))) for way, options in WAYS.items()}
            servers |= {peer: stack.enter_context(listening(theirs(peer))) for peer in arguments.peers}
            for rate in arguments.rates:
                row = {"offered_per_s": rate} | {
                    way: offer(server.port, pictures, rate, arguments.seconds) for way, server in servers.items()
                }
                print(path.name, row)
                rows.append(row)
            result["engines"][path.name] = engine_facts(path) | {"rates": rows}
            if arguments.soak:
                result["engines"][path.name]["soak"] = soak(servers["batches"], pictures, arguments.soak)
    write_result(arguments.output, result)


def ours(engine: Path, options: Sequence[str]) -> list[str]:
    """Command of our server, on a free port."""
    return [sys.executable, str(ROOT / "runtime" / "serve.py"), "--engine", str(engine), "--port", "0", *options]


def theirs(peer: str) -> list[str]:
    """Command of a peer's."""
    return [sys.executable, str(ROOT / "benchmarks" / "peer_server.py"), peer, "--threads", str(available_cores())]


class Listening(NamedTuple):
    """A server of its own process."""

    port: int
    pid: int


@contextmanager
def listening(command: Sequence[str]) -> Iterator[Listening]:
    """Starts a server, and waits for its first line, which ends with the port."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RobustScannerError(f"{command[1]} did not start; what it says stands above")
            yield Listening(int(line.rpartition(":")[2]), process.pid)
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
        status = post(local.connection, pictures[index % len(pictures)])
        return status, 1e3 * (time.perf_counter() - due)

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


def soak(server: Listening, pictures: Sequence[bytes], minutes: int) -> dict[str, Any]:
    """A steady load, one picture of a hundred of it no picture: the server's memory in windows of equal time."""
    mixed = [b"no picture" if index % 100 == 99 else pictures[index % len(pictures)] for index in range(100)]
    windows = []
    for _ in range(WINDOWS):
        row = offer(server.port, mixed, SOAK_PER_S, 60 * minutes // WINDOWS)
        windows.append(row | {"memory_mib": round(resident_mib(server.pid), 1)})
        print(windows[-1])
    growth = windows[-1]["memory_mib"] - windows[0]["memory_mib"]
    return {"minutes": minutes, "offered_per_s": SOAK_PER_S, "growth_mib": round(growth, 1), "windows": windows}


def post(connection: http.client.HTTPConnection, picture: bytes) -> int:
    """The status; a connection that the server closed because it was long idle is opened again, as clients do."""
    try:
        return _post(connection, picture)
    except ConnectionError:
        connection.close()
        return _post(connection, picture)


def _post(connection: http.client.HTTPConnection, picture: bytes) -> int:
    connection.request("POST", "/v1/read", picture, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


if __name__ == "__main__":
    sys.exit(main())
