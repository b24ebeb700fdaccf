"""What can go wrong. Every message is one line: the cause, then the cure."""


class RobustScannerError(Exception):
    """Anything the user can mend; programs print it as ``error: …`` and exit with 1."""


class SpecError(RobustScannerError):
    """A model description that contradicts itself or does not fit its weights or graph."""


class ImageError(RobustScannerError):
    """A picture that cannot be read or is beyond the limits."""


class EngineError(RobustScannerError):
    """An engine, ONNX file or runtime that cannot be used here."""
