"""What can go wrong. Every message is one line: the cause, then the cure."""

import json

_MOST_CHARACTERS = 200  # of a value in a message


class RobustScannerError(Exception):
    """Anything the user can fix; programs print it as ``error: …`` and exit with 1."""


class SpecError(RobustScannerError):
    """A model description that contradicts itself or does not fit its weights or graph."""


class ImageError(RobustScannerError):
    """A picture that cannot be read or is beyond the limits."""


class EngineError(RobustScannerError):
    """An engine, ONNX file or runtime that cannot be used here."""


class ConstraintError(RobustScannerError):
    """A constraint that says nothing sensible, or that a model or engine cannot heed."""


def shown(value: object) -> str:
    """A value read from a file, as a message shows it: as JSON, like in that file, and cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "…"


class MissingPackageError(RobustScannerError, ImportError):
    """A package that this library leaves to its user is not installed."""
