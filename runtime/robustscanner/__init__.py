"""RobustScanner: reads a cropped word from a picture, with ONNX Runtime or TensorRT behind it."""

from typing import TYPE_CHECKING, Any

from robustscanner.errors import EngineError, ImageError, RobustScannerError, SpecError

if TYPE_CHECKING:
    from robustscanner.recognizer import Reading, Recognizer
    from robustscanner.session import SessionOptions

__version__ = "0.1.0"
__all__ = [
    "EngineError",
    "ImageError",
    "Reading",
    "Recognizer",
    "RobustScannerError",
    "SessionOptions",
    "SpecError",
]

# Imported on first use: they need NumPy and OpenCV, and a program's --help does not.
_LAZY = {
    "Reading": "robustscanner.recognizer",
    "Recognizer": "robustscanner.recognizer",
    "SessionOptions": "robustscanner.session",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
