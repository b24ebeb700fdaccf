"""Reads a photo with RapidOCR, whose own recogniser is replaced by ours: `rapidocr_recognizer.py photo.jpg`."""

import sys
import time
from pathlib import Path

if __name__ == "__main__":  # from a bare checkout
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from rapidocr import RapidOCR
from rapidocr.ch_ppocr_rec import TextRecInput, TextRecOutput

from robustscanner import Recognizer


class RapidOcrRecognizer:
    """Takes the place of `RapidOCR().text_rec`.

    Args:
        recognizer: reads the words, and stays the caller's to close.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer

    def __call__(self, words: TextRecInput) -> TextRecOutput:
        """Reads crops, uint8 BGR [H, W, 3] each: RapidOCR has OpenCV's order of channels, we have RGB."""
        started = time.perf_counter()
        crops = [words.img] if isinstance(words.img, np.ndarray) else words.img
        readings = self._recognizer.read_batch([np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops])
        return TextRecOutput(
            imgs=crops,
            txts=tuple(reading.text for reading in readings),
            scores=tuple(reading.score for reading in readings),
            word_results=(None,) * len(crops),  # no places of characters, but one entry a word
            elapse=time.perf_counter() - started,
        )


def main() -> None:
    """Prints the text and the score of each word of a photo."""
    with Recognizer() as recognizer:
        ocr = RapidOCR(params={"Global.log_level": "error"})
        ocr.text_rec = RapidOcrRecognizer(recognizer)
        found = ocr(sys.argv[1])
        for text, score in zip(found.txts or (), found.scores or (), strict=True):
            print(f"{text}\t{score:.4f}")


if __name__ == "__main__":
    main()
