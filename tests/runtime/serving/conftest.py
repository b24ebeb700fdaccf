"""A server of its own process, and pictures for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from tests.convert.conftest import TINY

ROOT = Path(__file__).parents[3]


EDGE = ROOT / "runtime/robustscanner/models/edge.onnx"  # which knows letters, as TINY does not


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 14, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return as_png(noise)


def sign() -> "np.ndarray":
    """A word that can be read."""
    blank = np.full((60, 190, 3), 235, np.uint8)
    return cv2.putText(blank, "EXIT", (12, 46), cv2.FONT_HERSHEY_DUPLEX, 1.8, (30, 20, 20), 3, cv2.LINE_AA)


def as_png(image: "np.ndarray") -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())


@contextmanager
def listening(engine: Path = TINY) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A server of its own process, and its address."""
    program = [sys.executable, str(ROOT / "runtime" / "serve.py")]
    command = [*program, "--engine", str(engine), "--port", "0", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.terminate()
