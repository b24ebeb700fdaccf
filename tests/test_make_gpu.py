"""`make gpu` in a clean folder, on the stand-in driver: an environment, engines, tests and a table of latencies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda_driver.driver import environment, missing

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "GPU_MODEL": "tests/tiny/tiny.onnx",
    "GPU_BUILD": "--calib-images 4 --max-batch 4 --timing-cache build/timing.cache --version-compatible",
    "GPU_TESTS": "-k 'every_batch_size or ends_without_closing or damaged or not_there'",
    "GPU_LATENCY": "--words 2 --rounds 2 --batches 1,3 --seconds 2 --allow-host-code",
    "PYTHON": sys.executable,
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that git knows or would take, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.splitlines()):
        target = tmp_path / "kit" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return tmp_path / "kit"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_gpu(checkout: Path, tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    report = tmp_path / "report.json"
    found = environment(report)
    # What the test's own environment holds need not be installed again; TensorRT is the stand-in.
    found["PYTHONPATH"] = os.pathsep.join([str(checkout / "tests" / "dry_run"), *filter(os.path.isdir, sys.path)])
    settings = [f"{name}={value}" for name, value in SETTINGS.items()]
    done = subprocess.run(
        ["make", "gpu", *settings], cwd=checkout, env=found, capture_output=True, encoding="utf-8", timeout=1800
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "4 passed" in done.stdout
    assert "ms a word, one at a time; FP16" in done.stdout
    table = json.loads((checkout / "build" / "latency-gpu.json").read_text(encoding="utf-8"))["engines"]
    assert {engine["device"]["name"] for engine in table.values()} == {"stand-in driver"}
    assert all(set(engine["batches"]) == {"1", "3"} for engine in table.values())
    print(done.stdout[-2500:])
    left = json.loads(report.read_text(encoding="utf-8"))  # of the last program, which measured latency
    assert left["problems"] == []
    assert left["left"].pop("retained contexts") == 1  # the one that lives as long as the process
    assert not any(left["left"].values()), left["left"]
