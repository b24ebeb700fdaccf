"""Other CPUs than this one: INT8 engines of the shipped models against FP32 here, training, and tests that need them.

`make test-cpus` runs it; emulated, `r31` alone trains for many minutes, so CI asks for `--brief`. Each engine has to
read as many words as FP32, but for 0.5 points, the canvases have to be the same up to how OpenCV rounds, and every
shipped training config has to take five steps where there is no bfloat16.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "runtime"), str(ROOT)]

from robustscanner.labels import read_labels
from robustscanner.scoring import Scorer
from robustscanner.spec import ModelSpec
from tests.cpus.cpu import HERE, HOST, PLACE, Cpu, other_cpus

MODELS = sorted((ROOT / "runtime" / "robustscanner" / "models").glob("*.onnx"))
CONFIGS = sorted(
    (ROOT / "training" / "configs").glob("*.yaml")
)  # edge.yaml comes before qat.yaml, which starts from it
CALIB_DATA = ROOT / "calib_data"
BRIEF_CROPS = 24  # they show a wrong kernel
MAX_DROP_POINTS = 0.5  # of the words, as on any CPU
MAX_LEVELS = 1  # of 255: OpenCV's resizing rounds otherwise on Arm

# A real step needs minutes on a CPU, and nothing that a CPU may lack hangs on how many words are in it.
SETTINGS = {"steps": 5, "batch_size": 2, "bucket_batches": 1, "validate_every": 5, "checkpoint_every": 5}

# What hangs on how a CPU computes: resizing, 8-bit kernels, number formats. The rest of `make test` is alike anywhere.
TESTS = (
    "runtime/test_cpu.py",
    "runtime/test_preprocess.py",
    "runtime/test_recognizer.py",
    "convert/engine/cpu",
    "convert/int8",
    "convert/engine/accuracy",
    "training/test_precision.py",
)
# PyTorch against ONNX Runtime. Not emulated: qemu 7.2 computes oneDNN's LSTM wrongly, by 0.5 of values up to 1, where
# the CPU that it emulates does not.
TORCH_TESTS = (
    "training/test_qat.py",
    "training/test_trainer.py::test_precisions_of_a_cpu",
    "test_train_equals_serve.py",
)


@dataclass(frozen=True)
class Seen:
    """What reader.py saw on one CPU."""

    texts: list[str]
    canvases: npt.NDArray[np.uint8]  # (N, height, width, 3)


def main() -> int:
    """Exit status 0 when every CPU reads, trains and tests as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=100, metavar="N", help="emulated CPUs read (default: %(default)s)")
    parser.add_argument("--emulate-x86", action="store_true", help="by qemu-user, also where hiding features would do")
    parser.add_argument("--brief", action="store_true", help="emulated CPUs read 24 crops and train one config")
    arguments = parser.parse_args()
    failures = 0
    crops = min(arguments.crops, BRIEF_CROPS) if arguments.brief else arguments.crops
    for failure in _failures(other_cpus(emulate_x86=arguments.emulate_x86), crops, brief=arguments.brief):
        failures += 1
        print(f"FAILED: {failure}", flush=True)
    return int(failures > 0)


def _failures(others: Sequence[Cpu], count: int, *, brief: bool) -> Iterator[str]:
    for model in MODELS:
        yield from check_model(model, [HOST, *others], count)
    for cpu in others:
        if cpu.tests:
            yield from check_training(cpu, CONFIGS[:1] if brief and cpu.emulated else CONFIGS)
            yield from check_tests(cpu)


def check_model(model: Path, cpus: Sequence[Cpu], count: int) -> Iterator[str]:
    """Reads with FP32 here and with INT8 everywhere; prints a row a CPU, yields what is wrong."""
    labels = [crop.label for crop in read_labels(CALIB_DATA)]
    words = {cpu.emulated: min(count, len(labels)) if cpu.emulated else len(labels) for cpu in cpus}
    base = {emulated: _seen(HOST, model, number) for emulated, number in words.items()}
    engine, bits = _build(model)
    for cpu in cpus:
        number = words[cpu.emulated]
        seen = _seen(cpu, engine, number)
        spec = ModelSpec.from_dict(json.loads((engine / "engine.json").read_text(encoding="utf-8"))["model"])
        row, wrong = _compare(base[cpu.emulated], seen, Scorer.of(spec, labels[:number]))
        print(f"{model.stem:<6}{cpu.name:<38} {bits}-bit weights  {row}", flush=True)
        yield from (f"{model.stem}, {cpu.name}: {what}" for what in wrong)


def check_training(cpu: Cpu, configs: Sequence[Path]) -> Iterator[str]:
    """Five steps and a validation of each shipped config, as a user runs them but for the size of a batch."""
    for config in configs:
        run = PLACE / "runs" / config.stem
        settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
        settings += ["--init-from", PLACE / "runs" / "edge" / "best.safetensors"] if config.stem == "qat" else []
        crops = ["--crops", CALIB_DATA / "demo", "--validation", CALIB_DATA / "demo"]
        place = ["-o", run, "-f", "--device", "cpu", "--workers", 0]
        result = cpu.run(ROOT / "training" / "train.py", config, *place, *crops, *settings)
        kind = "float32" if "computing in float32" in result.stderr else "its own precision"
        print(f"{cpu.name}: {config.name}: {'5 steps in ' + kind if result.returncode == 0 else 'failed'}", flush=True)
        if result.returncode:
            yield f"{cpu.name}: {config.name}: {_last_line(result.stderr)}"


def check_tests(cpu: Cpu) -> Iterator[str]:
    """The part of `make test` that hangs on the CPU."""
    names = TESTS if cpu.emulated else (*TESTS, *TORCH_TESTS)
    result = cpu.run("-m", "pytest", *(ROOT / "tests" / name for name in names))
    print(f"{cpu.name}: {_last_line(result.stdout)}", flush=True)
    if result.returncode:
        yield f"{cpu.name}: tests:\n{result.stdout}"


def _build(model: Path) -> tuple[Path, int]:
    """The INT8 engine that every CPU gets by default, and how many bits its weights have."""
    engine = PLACE / f"{model.stem}.engine"
    options = ["--int8", "--backend", "onnxruntime"]
    build = [sys.executable, str(ROOT / "convert" / "build_engine.py"), str(model), *options, "-o", str(engine), "-f"]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    history = json.loads((engine / "engine.json").read_text(encoding="utf-8"))["history"]
    return engine, next(step["weight_bits"] for step in history if "weight_bits" in step)


def _compare(base: Seen, seen: Seen, scorer: Scorer) -> tuple[str, list[str]]:
    before, after = scorer.score(base.texts), scorer.score(seen.texts)
    alike = sum(a == b for a, b in zip(base.texts, seen.texts, strict=True)) / len(seen.texts)
    levels = int(np.abs(base.canvases.astype(np.int16) - seen.canvases).max())
    row = f"{before.words} words  FP32 here {before.rate:.1%}  INT8 {after.rate:.1%}  read alike {alike:.1%}"
    lost = before.correct - after.correct
    # Of few words, one alone is more than that share of them.
    wrong = [f"loses {lost} words of {before.correct}"] if lost > max(1, MAX_DROP_POINTS / 100 * before.words) else []
    wrong += [f"canvases differ by {levels} of 255"] if levels > MAX_LEVELS else []
    return f"{row}  canvases differ by {levels} of 255", wrong


def _seen(cpu: Cpu, engine: Path, count: int) -> Seen:
    canvases = PLACE / "canvases.npy"
    result = cpu.run(HERE / "reader.py", engine, count, canvases)
    if result.returncode:
        raise SystemExit(f"{cpu.name}: {engine.name}: {_last_line(result.stderr)}")
    return Seen(json.loads(result.stdout), np.load(canvases))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


if __name__ == "__main__":
    sys.exit(main())
