"""RobustScanner: reads a cropped word from a picture, with ONNX Runtime or TensorRT."""

import os
from typing import TYPE_CHECKING, Any

from robustscanner.errors import ConstraintError, EngineError, ImageError, RobustScannerError, SpecError

if TYPE_CHECKING:
    from robustscanner.constraint import Constraint
    from robustscanner.letters import Letter
    from robustscanner.recognizer import Reading, Recognizer, WordReading
    from robustscanner.session import SessionOptions
    from robustscanner.words import WordList

__version__ = "0.1.0"
__all__ = [
    "Constraint",
    "ConstraintError",
    "EngineError",
    "ImageError",
    "Letter",
    "Reading",
    "Recognizer",
    "RobustScannerError",
    "SessionOptions",
    "SpecError",
    "WordList",
    "WordReading",
]

# From 1.29 on, ONNX Runtime's wheels report to their maker. They look at this once, when they are first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # 0 in the environment turns it on

# Imported on first use: they need NumPy and OpenCV, and a program's --help does not.
_LAZY = {
    "Constraint": "robustscanner.constraint",
    "Letter": "robustscanner.letters",
    "Reading": "robustscanner.recognizer",
    "Recognizer": "robustscanner.recognizer",
    "SessionOptions": "robustscanner.session",
    "WordList": "robustscanner.words",
    "WordReading": "robustscanner.recognizer",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
