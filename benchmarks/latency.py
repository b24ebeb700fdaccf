"""One word from file bytes in memory to text, several engines and peers in turn, so that drift hits all alike."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from robustscanner.program import exit_status

ROOT = Path(__file__).parents[1]
EPILOG = """examples:
  python benchmarks/latency.py build/edge-int8.engine build/edge-fp32.engine
  python benchmarks/latency.py build/*.engine --peer ppocrv4 -o benchmarks/results/latency.json

Decoding stops at the end of the word, so the pictures decide the cost: these are calib_data's.
"""

Read = Callable[[bytes], str]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engines", type=Path, nargs="+", metavar="ENGINE", help="NAME.engine or NAME.onnx")
    parser.add_argument("--peer", action="append", default=[], choices=["ppocrv4"], help="PP-OCRv4 mobile of rapidocr")
    parser.add_argument("--crops", type=Path, default=ROOT / "calib_data", metavar="DIR", help="folder with labels.tsv")
    parser.add_argument("--words", type=int, default=25, metavar="N", help="crops of one round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="timed rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="per engine and peer (default: all cores)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write the figures there")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to mend."""
    arguments = parse_arguments()
    return exit_status(lambda: measure(arguments))


def measure(arguments: argparse.Namespace) -> None:
    """Opens everything at once, times it round by round, prints a table."""
    from benchmarks.machine import describe
    from robustscanner.labels import read_labels
    from robustscanner.session import SessionOptions

    options = SessionOptions() if arguments.threads is None else SessionOptions(threads=arguments.threads)
    readers = {path.name: engine_reader(path, options) for path in arguments.engines}
    readers |= {name: PEERS[name](options.threads) for name in arguments.peer}
    crops = read_labels(arguments.crops)
    crops = crops[:: max(1, len(crops) // arguments.words)]
    pictures = [crop.path.read_bytes() for crop in crops[: arguments.words]]
    times_ms = interleave(readers, pictures, arguments.rounds)
    figures = {name: summarise(times) for name, times in times_ms.items()}
    print_table(figures)
    if arguments.output:
        about = {"what": __doc__, "words": len(pictures), "rounds": arguments.rounds, "threads": options.threads}
        arguments.output.write_text(
            json.dumps({**about, "machine": describe(), "latency_ms": figures}, indent=2) + "\n"
        )


def engine_reader(path: Path, options: object) -> Read:
    """One of our engines; spinning threads of several engines would fight, so they sleep here."""
    from dataclasses import replace

    from robustscanner.preprocess import decode_image
    from robustscanner.recognizer import Recognizer

    recognizer = Recognizer(path, options=replace(options, spinning=False))
    return lambda data: recognizer.read(decode_image(data)).text


def ppocrv4_reader(threads: int) -> Read:
    """PP-OCRv4 mobile's recogniser as the rapidocr-onnxruntime wheel ships it.

    Raises:
        RobustScannerError: the wheel is not installed.
    """
    import cv2
    import numpy as np

    from robustscanner.errors import RobustScannerError

    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError:
        raise RobustScannerError("ppocrv4 needs its wheel: pip install rapidocr-onnxruntime==1.4.4") from None
    peer = RapidOCR(intra_op_num_threads=threads, inter_op_num_threads=1).text_rec

    def read(data: bytes) -> str:
        result = peer([cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)])
        return str(result[0][0][0])

    return read


PEERS = {"ppocrv4": ppocrv4_reader}


def interleave(readers: dict[str, Read], pictures: Sequence[bytes], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per word of every reader; the first of its words in a round only warms its caches up again."""
    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds + 1):
        for name, read in readers.items():
            read(pictures[0])
            for picture in pictures:
                begin = time.perf_counter()
                read(picture)
                times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: values[len(pictures) :] for name, values in times.items()}  # the first round warmed up


def summarise(times_ms: Sequence[float]) -> dict[str, float]:
    """Percentiles, milliseconds."""
    import numpy as np

    p50, p90, p99 = np.percentile(times_ms, [50, 90, 99])
    return {"p50": round(float(p50), 3), "p90": round(float(p90), 3), "p99": round(float(p99), 3)}


def print_table(figures: dict[str, dict[str, float]]) -> None:
    """One line an engine, the first one's median as the unit of the last column."""
    width = max(map(len, figures))
    unit = next(iter(figures.values()))["p50"]
    print(f"{'':<{width}}  {'p50 ms':>8}  {'p90 ms':>8}  {'p99 ms':>8}  {'ratio':>6}")
    for name, row in figures.items():
        print(f"{name:<{width}}  {row['p50']:8.2f}  {row['p90']:8.2f}  {row['p99']:8.2f}  {row['p50'] / unit:6.2f}")


if __name__ == "__main__":
    sys.exit(main())
