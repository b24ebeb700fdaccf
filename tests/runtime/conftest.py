"""Shared by the tests of the library and its program."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_model import ROOT, encode, picture_of, write_fake_model


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake model as a bare ONNX file."""
    return write_fake_model(tmp_path_factory.mktemp("engine") / "fake.onnx")


@pytest.fixture
def word(tmp_path: Path) -> Callable[..., Path]:
    """Writes a picture that the fake model reads as the given text of three characters."""

    def write(text: str, name: str | None = None) -> Path:
        path = tmp_path / (name or f"{text}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture_of(text), path.suffix))
        return path

    return write


@pytest.fixture
def recognize(engine: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the program in `tmp_path` with the fake model."""

    def run(*arguments: object, with_engine: object = engine, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "runtime" / "recognize.py"), "--engine", str(with_engine)]
        return subprocess.run(
            [*command, *map(str, arguments)],
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )

    return run
