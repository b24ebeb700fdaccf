"""INT8 engines of the shipped models on CPUs that are not here: emulated by Debian's qemu-user, against FP32 here.

`make test-cpus` runs it. Each engine has to read as many words as FP32, within 0.5 points, the canvases have to be the
same up to how OpenCV rounds, and one training step has to work where there is no bfloat16.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "runtime"), str(ROOT)]

from robustscanner.labels import read_labels
from robustscanner.scoring import Scorer
from robustscanner.spec import ModelSpec

HERE = Path(__file__).parent
ARM64 = ROOT / "build" / "cpus" / "arm64"
MODELS = sorted((ROOT / "runtime" / "robustscanner" / "models").glob("*.onnx"))
MAX_DROP_POINTS = 0.5  # of the words, as on any CPU

MAX_LEVELS = 1  # of 255: OpenCV's resizing rounds otherwise on Arm


@dataclass(frozen=True)
class Seen:
    """What reader.py saw on one CPU."""

    texts: list[str]
    canvases: npt.NDArray[np.uint8]  # (N, height, width, 3)


@dataclass(frozen=True)
class Cpu:
    """A CPU, and how to run Python on it."""

    name: str
    python: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    trains: bool = False  # has PyTorch

    def run(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs a program of this folder there."""
        command = [*self.python, str(HERE / script), *map(str, arguments)]
        return subprocess.run(command, env={**os.environ, **dict(self.environment)}, text=True, capture_output=True)


HOST = Cpu("this CPU", (sys.executable,))
HASWELL = Cpu("Haswell (AVX2, no VNNI)", ("qemu-x86_64", "-cpu", "Haswell", sys.executable), trains=True)
ARM = Cpu(
    "Arm (aarch64)",
    ("qemu-aarch64", "-L", str(ARM64), str(ARM64 / "usr" / "bin" / "python3.11")),
    (("PYTHONPATH", str(ARM64 / "packages")), ("PYTHONHOME", str(ARM64 / "usr"))),
)


def main() -> int:
    """Exit status 0 when every CPU reads as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=100, metavar="N", help="of calib_data (default: %(default)s)")
    count = parser.parse_args().crops
    cpus = [HOST, *_emulated()]
    failures = [failure for model in MODELS for failure in check_model(model, cpus, count)]
    failures += [failure for cpu in cpus if cpu.trains for failure in check_training(cpu)]
    for failure in failures:
        print(f"FAILED: {failure}")
    return int(bool(failures))


def check_model(model: Path, cpus: Sequence[Cpu], count: int) -> list[str]:
    """Reads with FP32 here and with the INT8 engine everywhere; prints a row a CPU, returns what is wrong."""
    engine = ROOT / "build" / "cpus" / f"{model.stem}.engine"
    build = [
        sys.executable,
        str(ROOT / "convert" / "build_engine.py"),
        str(model),
        "--int8",
        "--reduce-range",
        "--backend",
        "onnxruntime",
    ]
    subprocess.run([*build, "-o", str(engine), "-f"], check=True, stdout=subprocess.DEVNULL)
    labels = [crop.label for crop in read_labels(ROOT / "calib_data")[:count]]
    spec = ModelSpec.from_dict(json.loads((engine / "engine.json").read_text(encoding="utf-8"))["model"])
    scorer = Scorer.of(spec, labels)
    base = _seen(HOST, model, count)
    print(f"{model.stem}: FP32 here reads {scorer.score(base.texts).rate:.1%} of {len(labels)} words")
    failures = []
    for cpu in cpus:
        seen = _seen(cpu, engine, count)
        failures += [f"{model.stem}, {cpu.name}: {what}" for what in _compare(cpu, base, seen, scorer)]
    return failures


def check_training(cpu: Cpu) -> list[str]:
    """One step in bfloat16, or in float32 where that is not to be had."""
    result = cpu.run("trainer.py")
    print(f"{cpu.name}: {result.stdout.strip()}")
    return [] if result.returncode == 0 else [f"{cpu.name}: training: {_last_line(result.stderr)}"]


def _compare(cpu: Cpu, base: Seen, seen: Seen, scorer: Scorer) -> list[str]:
    before, after = scorer.score(base.texts), scorer.score(seen.texts)
    alike = sum(a == b for a, b in zip(base.texts, seen.texts, strict=True)) / len(seen.texts)
    levels = int(np.abs(base.canvases.astype(np.int16) - seen.canvases).max())
    print(f"  {cpu.name:<26} INT8 {after.rate:7.1%}  read alike {alike:7.1%}  canvases differ by {levels} of 255")
    lost = before.correct - after.correct
    # Of few words, one alone is more than that share of them.
    drop = [f"loses {lost} words of {before.correct}"] if lost > max(1, MAX_DROP_POINTS / 100 * before.words) else []
    return drop + ([f"canvases differ by {levels} of 255"] if levels > MAX_LEVELS else [])


def _seen(cpu: Cpu, engine: Path, count: int) -> Seen:
    canvases = ROOT / "build" / "cpus" / "canvases.npy"
    result = cpu.run("reader.py", engine, count, canvases)
    if result.returncode:
        raise SystemExit(f"{cpu.name}: {engine.name}: {_last_line(result.stderr)}")
    return Seen(json.loads(result.stdout), np.load(canvases))


def _emulated() -> list[Cpu]:
    """The CPUs that can be emulated here; says which cannot, and why."""
    found = []
    if which("qemu-x86_64") and os.uname().machine == "x86_64":
        found.append(HASWELL)
    else:
        print(f"{HASWELL.name}: left out, no qemu-x86_64 here; apt install qemu-user")
    fetched = which("qemu-aarch64") and subprocess.run([str(HERE / "arm64.sh")]).returncode == 0
    if fetched:
        found.append(ARM)
    else:
        print(f"{ARM.name}: left out, no qemu-aarch64 or no packages for it; apt install qemu-user")
    return found


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


if __name__ == "__main__":
    sys.exit(main())
