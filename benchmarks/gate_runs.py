"""The accuracy gate at work: the way to choose ranges that it refuses, and the layers that a repair restores."""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from robustscanner.program import exit_status

BUILD = "convert/build_engine.py"
METHODS = ("max", "mse", "entropy", "percentile")  # the likeliest to be refused first
EPILOG = """examples:
  python benchmarks/gate_runs.py -o gate.json
  python benchmarks/gate_runs.py my.onnx --max-drop 0.1 --calib-data my_crops --calib-images 512

Every convolution is quantised, also those that build_engine.py spares by default: what it builds would often pass.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, also when nothing was refused, or 1 with one line on what to fix."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="NAME.onnx or checkpoint (default: the shipped one)")
    parser.add_argument("--max-drop", default="0.3", metavar="POINTS", help="default: %(default)s")
    parser.add_argument("--calib-data", metavar="DIR", help="folder with labels.tsv (default: calib_data)")
    parser.add_argument("--calib-images", default="128", metavar="N", help="crops to draw (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write what happened there")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: show(parsed))


def show(arguments: argparse.Namespace) -> None:
    """Builds by one method after the other until the gate refuses, then again with `--repair`."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, write_result

    result = begin_result("gate", __doc__, arguments.output)
    data = ["--calib-data", arguments.calib_data] if arguments.calib_data else []
    runs: list[dict[str, Any]] = []
    with TemporaryDirectory() as scratch:
        engine = Path(scratch) / "gate.engine"
        for method in METHODS:
            options = [*([arguments.model] if arguments.model else []), "--int8", "--exclude", "", *data]
            options += ["--calib-method", method, "--calib-images", arguments.calib_images]
            options += ["--backend", "onnxruntime", "--max-drop", arguments.max_drop]
            runs.append(build(options, engine))
            if runs[-1]["status"]:
                runs.append(build([*options, "--repair"], engine))
                if not runs[-1]["status"]:
                    break
        if not runs[-1]["status"]:
            result |= {"engine": engine_facts(engine), "history": gate_steps(engine)}
    write_result(arguments.output, result | {"max_drop_points": float(arguments.max_drop), "runs": runs})


def build(options: Sequence[str], engine: Path) -> dict[str, Any]:
    """One run of the program, printed as it would look on a terminal, JSON-ready; its folders' names are left out."""
    command = [sys.executable, str(Path(__file__).parents[1] / BUILD), *options, "-o", str(engine), "--force"]
    finished = subprocess.run(command, capture_output=True, text=True)
    lines = (finished.stdout + finished.stderr).replace(f"{engine.parent}/", "").splitlines()
    shown = shlex.join(["python", BUILD, *options, "-o", engine.name])
    print(f"$ {shown}", *lines, f"exit status {finished.returncode}", "", sep="\n", flush=True)
    return {"command": shown, "output": lines, "status": finished.returncode}


def gate_steps(engine: Path) -> list[dict[str, Any]]:
    """What the engine remembers of the gate."""
    from robustscanner.engine import read_manifest

    steps = [dict(step) for step in read_manifest(engine).history if step["step"] == "gate"]
    print(f"history of {engine.name}:", *map(json.dumps, steps), sep="\n  ")
    return steps


if __name__ == "__main__":
    sys.exit(main())
