"""The README of a folder is short and names every file that is there."""

import re
from pathlib import Path

import pytest

from .markdown import FOLDERS, ROOT

ROOMS = sorted(path.parent for path in (ROOT / "convert").glob("*/**/__init__.py"))
MOST_LINES = 25


@pytest.mark.parametrize("folder", [*ROOMS, *(ROOT / name for name in {*FOLDERS, "cmake"} - {"docs"})], ids=str)
def test_is_short(folder: Path) -> None:
    assert len((folder / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("folder", [ROOT / "convert", *ROOMS, ROOT / "cmake"], ids=lambda folder: folder.name)
def test_names_every_file(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    there = {path.name for path in folder.iterdir() if path.is_file()} - {"README.md", "__init__.py"}
    assert {name for name in re.findall(r"`([\w.]+\.\w+)`", text) if "/" not in name} >= there


@pytest.mark.parametrize(
    "folder", [ROOT / name for name in ("benchmarks", "runtime", "training")], ids=lambda f: f.name
)
def test_names_every_module(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    modules = [path for path in folder.rglob("*.py") if not path.name.startswith("__")]
    assert [path.name for path in modules if not re.search(rf"\b{path.stem}\b", text)] == []
