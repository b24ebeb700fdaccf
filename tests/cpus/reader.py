"""Reads crops on its own CPU, with the library alone: `reader.py ENGINE COUNT CANVASES.npy`, prints the texts."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "runtime"))

import numpy as np

from robustscanner import Recognizer, SessionOptions
from robustscanner.labels import read_labels
from robustscanner.preprocess import load_image, make_batch


def main() -> None:
    """Texts in order, as JSON; all canvases beside the engine."""
    engine, count, canvases = sys.argv[1:]
    paths = [crop.path for crop in read_labels(ROOT / "calib_data")[: int(count)]]
    with Recognizer(engine, batch_size=1, options=SessionOptions(threads=1, spinning=False)) as recognizer:
        np.save(canvases, make_batch([load_image(path) for path in paths], recognizer.spec.input)[0])
        print(json.dumps([reading.text for reading in recognizer.read_batch(paths)]))


if __name__ == "__main__":
    main()
