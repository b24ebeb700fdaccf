"""What is installed, and what is left as it was."""

import os
import re
import shutil
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


@pytest.mark.skipif(os.environ.get("NETWORK") != "1", reason="downloads OpenCV and ONNX Runtime; NETWORK=1 runs it")
def test_the_wheel_leaves_opencv_python_as_it_is(tmp_path: Path) -> None:
    """And reads with it. `opencv-python-headless` would overwrite its files, and take the windows away."""
    python, source = tmp_path / "venv" / "bin" / "python", tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "runs", "*.egg-info"))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [python, "-I", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", source, "--no-deps", "--wheel-dir", tmp_path], check=True)
    subprocess.run([*pip, "install", "opencv-python<5", "onnxruntime"], check=True)
    before = changed_files(python)
    subprocess.run([*pip, "install", *tmp_path.glob("*.whl")], check=True)
    assert changed_files(python) == before == "opencv-python: 0 of its files changed; onnxruntime: 0; windows: True\n"
    read = [python, "-I", "-m", "robustscanner", ROOT / "calib_data" / "demo" / "01.jpg"]
    result = subprocess.run(read, capture_output=True, text=True, check=True)
    assert result.stdout.split("\t")[1] == "EXIT"


def changed_files(python: Path) -> str:
    """What of OpenCV and ONNX Runtime is not as it was installed, and whether OpenCV can still open windows."""
    code = """
import base64, cv2, hashlib
from importlib.metadata import files
def changed(name):
    def digest(file):
        return base64.urlsafe_b64encode(hashlib.sha256(file.read_binary()).digest()).rstrip(b"=").decode()
    return sum(file.hash is not None and file.hash.value != digest(file) for file in files(name))
windows = any(line.split()[:1] in (["QT:"], ["GTK+:"]) and "NO" not in line
              for line in cv2.getBuildInformation().splitlines())
print(f"opencv-python: {changed('opencv-python')} of its files changed; onnxruntime: {changed('onnxruntime')}; "
      f"windows: {windows}")
"""
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
