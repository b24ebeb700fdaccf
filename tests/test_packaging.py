"""What is installed, and what is left as it was."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RIVALS = ("opencv", "onnxruntime")  # packages that come in several kinds, each of which overwrites the others' files


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))


def test_no_second_opencv_or_onnx_runtime_is_pulled_in(project: dict[str, Any]) -> None:
    """Not by installing the kit, and by no extra that does not say so by name."""
    extras = project["project"]["optional-dependencies"]
    wanting = {"": project["project"]["dependencies"], **extras}
    found = {extra for extra, needs in wanting.items() if any(need.startswith(RIVALS) for need in needs)}
    assert found == {"cpu"}
    with_cpu = {extra for extra, needs in extras.items() if any(re.match(r"robustscanner\[.*cpu", n) for n in needs)}
    assert with_cpu == {"bench", "dev"}


def test_every_package_is_listed(project: dict[str, Any]) -> None:
    """A wheel holds the packages that are named, so a new folder must be."""
    settings = project["tool"]["setuptools"]
    for name, folder in (("robustscanner", "runtime/robustscanner"), ("robustscanner.convert", "convert")):
        folders = {path.parent.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py")}
        packages = {".".join([name, *path.parts]) for path in folders}
        assert packages <= set(settings["packages"])


def test_calibration_crops_are_found_beside_convert(project: dict[str, Any]) -> None:
    """In a wheel, convert and calib_data are neighbours as in the checkout."""
    settings = project["tool"]["setuptools"]
    assert "robustscanner.calib_data" in settings["packages"]
    assert settings["package-dir"]["robustscanner.calib_data"] == "calib_data"
    held = {
        path
        for glob in settings["package-data"]["robustscanner.calib_data"]
        for path in (ROOT / "calib_data").glob(glob)
    }
    rows = (ROOT / "calib_data" / "labels.tsv").read_text(encoding="utf-8").splitlines()
    assert held >= {ROOT / "calib_data" / row.split("\t")[0] for row in rows} | {ROOT / "calib_data" / "labels.tsv"}


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "robustscanner", "--help"]
    result = subprocess.run(command, cwd=ROOT / "runtime", capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith("usage: python -m robustscanner ")


@pytest.mark.parametrize(
    ("missing", "says"), [("cv2", "OpenCV cannot be imported"), ("onnxruntime", "ONNX Runtime cannot be imported")]
)
def test_what_is_missing_is_named(missing: str, says: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from robustscanner.recognize import main; sys.exit(main())"
    command = [sys.executable, "-c", code, str(ROOT / "calib_data" / "demo" / "01.jpg")]
    result = subprocess.run(command, cwd=ROOT / "runtime", capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert "pip install 'robustscanner[cpu]'" in result.stderr
    assert result.stderr.count("\n") == 1
