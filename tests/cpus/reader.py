"""Reads crops on the CPU it runs on, with the library alone, and prints as JSON what it saw: `reader.py ENGINE N`."""

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "runtime"))

from robustscanner import Recognizer, SessionOptions
from robustscanner.labels import read_labels
from robustscanner.preprocess import load_image, make_batch


def main() -> None:
    """Texts in order, and a hash of all canvases."""
    engine, count = sys.argv[1], int(sys.argv[2])
    paths = [crop.path for crop in read_labels(ROOT / "calib_data")[:count]]
    canvases = hashlib.sha256()
    with Recognizer(engine, batch_size=1, options=SessionOptions(threads=1, spinning=False)) as recognizer:
        for path in paths:
            for part in make_batch([load_image(path)], recognizer.spec.input):
                canvases.update(part.tobytes())
        texts = [reading.text for reading in recognizer.read_batch(paths)]
    print(json.dumps({"texts": texts, "canvases": canvases.hexdigest()}))


if __name__ == "__main__":
    main()
