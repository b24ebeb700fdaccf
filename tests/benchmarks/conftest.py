"""Shared by the tests of benchmarks: the tiny model, an INT8 engine of it, and its labelled pictures."""

from pathlib import Path

import pytest

from convert.build_engine import main
from tests.convert.conftest import TINY, crops

__all__ = ["TINY", "crops", "int8_engine"]


@pytest.fixture(scope="session")
def int8_engine(tmp_path_factory: pytest.TempPathFactory, crops: Path) -> Path:
    target = tmp_path_factory.mktemp("engines") / "int8.engine"
    assert main([str(TINY), "--int8", "-o", str(target), "--calib-data", str(crops)]) == 0
    return target
