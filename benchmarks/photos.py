"""Words of whole photos: RapidOCR as it is, with our recogniser in its place, and `recognize --detect`."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

import cv2
import numpy as np

from benchmarks.arguments import CALIB_DATA, engine_parser, session_options
from benchmarks.peers import open_rapidocr
from robustscanner.errors import MissingPackageError
from robustscanner.program import exit_status, whole_number

if TYPE_CHECKING:
    from benchmarks.scenes import Scene
    from robustscanner.photo import Quad
    from robustscanner.preprocess import Image
    from robustscanner.recognizer import Recognizer

EPILOG = """examples:
  python benchmarks/photos.py build/small-int8.engine build/edge-int8.engine -o benchmarks/results/photos.json

The photos are drawn here (scenes.py), with the words of calib_data. All ways read each photo in turn, so that a busy
moment hurts all of them. Needs RapidOCR: pip install -e '.[bench,detect]'.
"""
SEED = 18
LEAST_IOU = 0.5  # intersection over union from which on a word counts as found, as usual for detectors
LEAST_CHARACTERS = 3  # letters and digits of a word

Found = list[tuple["Quad", str]]  # where a word stands, and what was read there
Read = Callable[["Image"], Found]  # of a photo, uint8 RGB [H, W, 3]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = engine_parser(__doc__, EPILOG)
    parser.add_argument("--scenes", type=whole_number, default=40, metavar="N", help="photos (default: %(default)s)")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Every engine in both ways, beside RapidOCR alone."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, report_progress, write_result
    from benchmarks.scenes import draw_scenes
    from robustscanner.labels import read_labels
    from robustscanner.metrics import normalise
    from robustscanner.recognizer import Recognizer

    result = begin_result("photos", __doc__, arguments.output)
    options = session_options(arguments, spinning=False)
    with ExitStack() as stack:
        readers = {("RapidOCR", "alone"): rapidocr_reader(options.threads)}
        for path in arguments.engines:
            recognizer = stack.enter_context(Recognizer(path, options=options))
            readers[path.name, "in RapidOCR"] = rapidocr_reader(options.threads, recognizer)
            readers[path.name, "--detect"] = detect_reader(recognizer)
        report_progress(f"drawing {arguments.scenes} photos")
        labels = {crop.label for crop in read_labels(CALIB_DATA)}
        vocabulary = sorted(label for label in labels if len(normalise(label)) >= LEAST_CHARACTERS)
        scenes = draw_scenes(arguments.scenes, vocabulary, SEED)
        report_progress(f"reading them in {len(readers)} ways")
        rows = read_in_turn(readers, scenes)
    engines: dict[str, dict[str, Any]] = {"RapidOCR": {"ways": {}}}
    engines |= {path.name: engine_facts(path) | {"ways": {}} for path in arguments.engines}
    for (name, way), row in rows.items():
        print(f"{name}, {way}: {row}")
        engines[name]["ways"][way] = row
    result |= {"photos": len(scenes), "words": sum(len(scene.words) for scene in scenes), "threads": options.threads}
    write_result(arguments.output, result | {"engines": engines})


def rapidocr_reader(threads: int, recognizer: "Recognizer | None" = None) -> Read:
    """RapidOCR as it is, or with `recognizer` in place of its own.

    Raises:
        MissingPackageError: RapidOCR cannot be imported.
    """
    try:
        from examples.rapidocr_recognizer import RapidOcrRecognizer

        ocr = open_rapidocr(threads)
    except ImportError as error:
        raise MissingPackageError(f"photos need rapidocr ({error}): pip install -e '.[bench,detect]'") from None
    if recognizer:
        ocr.text_rec = RapidOcrRecognizer(recognizer)

    def read(picture: "Image") -> Found:
        found = ocr(np.ascontiguousarray(picture[:, :, ::-1]))
        return [] if found.txts is None else list(zip(found.boxes, found.txts, strict=True))

    return read


def detect_reader(recognizer: "Recognizer") -> Read:
    """As `recognize --detect`, which opens the detector for its one photo."""
    from robustscanner.photo import detect_quads, read_photo

    def read(picture: "Image") -> Found:
        words = read_photo(recognizer, picture, detect_quads(picture))
        return [(word.quad, word.reading.text) for word in words]

    return read


def read_in_turn(readers: Mapping[Any, Read], scenes: Sequence["Scene"]) -> dict[Any, dict[str, Any]]:
    """What each reader makes of all scenes, and how long it takes; the first scene is read once more, to warm up."""
    times: dict[Any, list[float]] = {name: [] for name in readers}
    found: dict[Any, list[Found]] = {name: [] for name in readers}
    for read in readers.values():
        read(scenes[0].picture)
    for scene in scenes:
        for name, read in readers.items():
            started = time.perf_counter()
            found[name].append(read(scene.picture))
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: judge(scenes, found[name]) | _milliseconds(times[name]) for name in readers}


def judge(scenes: Sequence["Scene"], found: Sequence[Found]) -> dict[str, Any]:
    """Words found, and words found and read; and what was read where no word stands."""
    from benchmarks.verdict import Verdict
    from robustscanner.scoring import EXACT

    texts: list[str | None] = []
    elsewhere = 0
    for scene, words in zip(scenes, found, strict=True):
        overlaps = np.array([[iou(quad, other) for other, _ in words] for quad in scene.quads])  # (truth, found)
        hits = overlaps.reshape(len(scene.quads), len(words)) >= LEAST_IOU
        texts += [words[row.argmax()][1] if row.any() else None for row in hits]
        elsewhere += int((~hits.any(0)).sum())
    labels = [word for scene in scenes for word in scene.words]
    readings = [text or "" for text in texts]
    exact = round(EXACT.score(readings, labels).rate, 4)
    share = round(sum(text is not None for text in texts) / len(texts), 4)
    return {"found": share, "read": Verdict(readings, labels).row(), "exact": exact, "elsewhere": elsewhere}


def iou(first: "Quad", second: "Quad") -> float:
    """Intersection over union of two convex quadrilaterals, (4, 2) each: 0…1."""
    areas = [cv2.contourArea(np.asarray(quad, np.float32)) for quad in (first, second)]
    common = cv2.intersectConvexConvex(np.asarray(first, np.float32), np.asarray(second, np.float32))[0]
    return float(common / (sum(areas) - common))


def _milliseconds(times: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}_ms": round(float(np.percentile(times, percent)), 1) for percent in (50, 90)}


if __name__ == "__main__":
    sys.exit(main())
