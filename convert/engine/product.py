"""What a backend leaves in the folder of an engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustscanner.engine import BatchRange


@dataclass(frozen=True)
class Product:
    """The part of an `engine.json` that only the backend knows."""

    backend: str  # as in engine.json
    files: Sequence[str]  # names of files in the folder
    batch: BatchRange
    versions: Mapping[str, str]  # of the libraries that run it
    device: Mapping[str, str]
    steps: Sequence[Mapping[str, Any]] = ()  # of its history, between the model's own and "build"
    summary: Sequence[tuple[str, str]] = ()  # (what, text) lines for people
    details: Sequence[str] = ()  # lines for --verbose
    # Reads the calibration crops where the engine itself cannot run: gives texts in order.
    simulate: Callable[[], Sequence[str]] | None = field(default=None, repr=False)
    # What else to measure here, of the folder once it can be opened: a line of the summary.
    compare: Callable[[Path], tuple[str, str]] | None = field(default=None, repr=False)
