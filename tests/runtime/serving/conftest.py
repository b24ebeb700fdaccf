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


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 14, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return bytes(cv2.imencode(".png", noise)[1].tobytes())


@contextmanager
def listening() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A server of its own process, and its address."""
    program = [sys.executable, str(ROOT / "runtime" / "serve.py")]
    command = [*program, "--engine", str(TINY), "--port", "0", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.terminate()
