"""The C++ library and the Python one: the same engine, crops and threads, in turns; latency and memory of one word."""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from benchmarks.arguments import add_sets, engine_parser, session_options
from robustscanner.errors import RobustScannerError
from robustscanner.program import exit_status, whole_number

ROOT = Path(__file__).parents[1]
BUILDS = ROOT / "build" / "cpp"
EPILOG = """examples:
  make cpp && cmake --preset pixels && cmake --build --preset pixels
  python benchmarks/native.py build/edge-int8.engine -o benchmarks/results/native-cpu.json

Pictures are decoded before the clock starts: a word costs resizing, the graph, and its text. Memory is the peak of the
whole process: C++ and Python opened the JPEG files, the build without picture files PPM copies of them.
"""
# What a reader maps of the libraries it computes with; their versions are in the names.
_LIBRARY = re.compile(r"/((?:libonnxruntime|onnxruntime_pybind|libopencv_(?:core|imgcodecs)|cv2\.)[^/]*\.so\S*)$")


class NativeError(RobustScannerError):
    """A contestant that is not built, or stopped."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = engine_parser(__doc__, EPILOG)
    add_sets(parser)
    parser.set_defaults(words=32)
    parser.add_argument(
        "--builds", type=Path, default=BUILDS, metavar="DIR", help="folder with release/ and pixels/, built with CMake"
    )
    parser.add_argument(
        "--rounds", type=whole_number, default=12, metavar="N", help="timed rounds (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="start no new round after so long")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """One engine after another; prints a table of each."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, write_result
    from benchmarks.sample import readable_crops

    result = begin_result("native", __doc__, arguments.output)
    threads = session_options(arguments).threads
    files = [crop.path for folder in arguments.data for crop in readable_crops(folder, arguments.words)]
    sets = [folder.name for folder in arguments.data]
    engines: dict[str, Any] = {}
    with _decoded(files) as copies:
        for path in arguments.engines:
            commands = _commands(path, threads, arguments.builds, files, copies)
            engines[path.name] = engine_facts(path) | {
                "readers": compare(commands, rounds=arguments.rounds, seconds=arguments.seconds)
            }
            print_table(path.name, engines[path.name]["readers"])
    write_result(
        arguments.output, result | {"threads": threads, "sets": sets, "timed_words": len(files), "engines": engines}
    )


def compare(commands: Mapping[str, Sequence[str]], *, rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Times and memory of programs that take turns; the first round warms up and does not count."""
    from benchmarks.rounds import LEAST_ROUNDS, summarise

    with ExitStack() as stack:
        readers = {name: stack.enter_context(_started(command)) for name, command in commands.items()}
        times: dict[str, list[list[float]]] = {name: [] for name in readers}
        begin = time.perf_counter()
        for number in range(rounds + 1):
            for name, process in readers.items():
                times[name].append(_turn(name, process))
            if number >= LEAST_ROUNDS and time.perf_counter() - begin > seconds:
                break
        return {
            name: {"latency_ms": summarise(times[name][1:])} | _footprint(process.pid)
            for name, process in readers.items()
        }


def print_table(engine: str, readers: Mapping[str, Mapping[str, Any]]) -> None:
    """One line each, the last one's figures as the unit of the ratios."""
    last = list(readers.values())[-1]
    width = max(map(len, [engine, *readers]))
    print(f"{engine:<{width}} {'p50 ms':>8} {'p90 ms':>8} {'ratio':>6} {'MiB':>7} {'ratio':>6} {'libraries':>9}")
    for name, row in readers.items():
        times, memory = row["latency_ms"], row["peak_memory_mib"]
        print(
            f"{name:<{width}} {times['p50']:8.2f} {times['p90']:8.2f} {times['p50'] / last['latency_ms']['p50']:6.2f} "
            f"{memory:7.1f} {memory / last['peak_memory_mib']:6.2f} {row['mapped_libraries']:9d}"
        )


def _commands(
    engine: Path, threads: int, builds: Path, files: Sequence[Path], copies: Sequence[Path]
) -> dict[str, list[str]]:
    common = ["--engine", str(engine), "--threads", str(threads)]
    native = [*common, "--no-spinning", "--turns"]
    python = [sys.executable, str(ROOT / "benchmarks" / "turns.py"), *common]
    return {
        "C++, without picture files": [_bench(builds, "pixels"), *native, *map(str, copies)],
        "C++": [_bench(builds, "release"), *native, *map(str, files)],
        "Python": [*python, *map(str, files)],
    }


def _bench(builds: Path, preset: str) -> str:
    path = builds / preset / "bin" / "bench"
    if not path.exists():
        raise NativeError(f"{path}: not built; run cmake --preset {preset} and cmake --build --preset {preset}")
    return str(path)


@contextmanager
def _decoded(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Copies as PPM, which needs no decoder."""
    from robustscanner.preprocess import load_image

    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder) / f"{index}.ppm" for index in range(len(files))]
        for path, copy in zip(files, copies, strict=True):
            image = load_image(path)
            copy.write_bytes(b"P6 %d %d 255\n" % (image.shape[1], image.shape[0]) + image.tobytes())
        yield copies


@contextmanager
def _started(command: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _turn(name: str, process: "subprocess.Popen[str]") -> list[float]:
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write("\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        raise NativeError(f"{name} stopped; its own error stands above")
    times: list[float] = json.loads(line)
    return times


def _footprint(pid: int) -> dict[str, object]:
    """Resident memory at its highest, and the libraries in it."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    mapped = {
        line.split(maxsplit=5)[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if ".so" in line
    }
    versions = sorted(found[1] for path in mapped if (found := _LIBRARY.search(path)))
    return {"peak_memory_mib": round(peak_kib / 1024, 1), "mapped_libraries": len(mapped), "libraries": versions}


if __name__ == "__main__":
    sys.exit(main())
