"""Compiles the CUDA kernels for every GPU that they are for, and notes what ptxas says: registers, spills, memory."""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from robustscanner.errors import RobustScannerError
from robustscanner.gpu.kernels import DecodeSizes, Launch, Room, RowsSizes, plan_launch, sources_sha256
from robustscanner.program import exit_status

SOURCE = Path(__file__).parents[1] / "runtime" / "cuda" / "kernels.cu"
TARGETS = (75, 80, 86, 87, 89, 90, 100, 110, 120)
# Shared memory that a block may have (CUDA's programming guide, «technical specifications per compute capability»).
SHARED_KIB = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 110: 227, 120: 99}
REGISTERS, MOST_REGISTERS = 65536, 255  # of a multiprocessor, and of a thread
EPILOG = """examples:
  python benchmarks/kernels.py -o benchmarks/results/kernels.json
"""
_FUNCTION = re.compile(
    r"Compiling entry function 'robustscanner_(?P<kernel>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to do."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--targets", type=int, nargs="+", default=TARGETS, metavar="N", help="of sm_N")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: measure(parsed.targets, parsed.output))


def measure(targets: Sequence[int], output: Path | None) -> None:
    """Prints a line for each target, and writes all with -o."""
    from benchmarks.result import begin_result, write_result

    result = begin_result("kernels", __doc__, output)
    result |= {"nvcc": nvcc_version(), "sources_sha256": sources_sha256(SOURCE.parent), "targets": {}}
    for target in targets:
        result["targets"][f"sm_{target}"] = found = compile_for(target)
        print(f"sm_{target}: {found}")
    write_result(output, result)


def compile_for(target: int) -> dict[str, Any]:
    """What ptxas says of each kernel, and the size of the file.

    Raises:
        RobustScannerError: nvcc fails, or is not there.
    """
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        said = _nvcc("-std=c++17", f"-arch=sm_{target}", "-Xptxas", "-v", "-cubin", str(SOURCE), "-o", str(cubin))
        size = cubin.stat().st_size
    kernels = {}
    for match in _FUNCTION.finditer(said):
        numbers = {name: int(match[name]) for name in ("registers", "stack", "stores", "loads")}
        kernels[match["kernel"]] = numbers
    return {"kernels": dict(sorted(kernels.items())), "cubin_bytes": size}


def shared_memory(target: int) -> dict[str, Launch]:
    """What launches of one word take on a GPU of this kind with two groups' worth of multiprocessors."""
    room = Room(2, SHARED_KIB[target] * 1024, clusters=target >= 90)
    sizes = {
        "decode, edge": DecodeSizes(1, 120, 160, 92, 40),
        "decode, r31": DecodeSizes(1, 240, 512, 92, 40),
        "decode, 16 words of r31": DecodeSizes(16, 240, 512, 92, 40),
        "rows, edge": RowsSizes(3, 40),
        "rows, 16 words of r31": RowsSizes(96, 40),
    }
    return {name: plan_launch(size, room) for name, size in sizes.items()}


def nvcc_version() -> str:
    """E.g. "13.0.88"; raises as `compile_for`."""
    found = re.search(r"V(\d+\.\d+\.\d+)", _nvcc("--version"))
    return found[1] if found else "unknown"


def _nvcc(*arguments: str) -> str:
    """What it says, on either stream."""
    try:
        run = subprocess.run(["nvcc", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        cure = "install the CUDA toolkit, 11.8 or newer"
        raise RobustScannerError(f"nvcc cannot be run ({error.strerror}); {cure}") from None
    if run.returncode:
        raise RobustScannerError(f"nvcc fails: {(run.stdout.strip().splitlines() or [run.returncode])[-1]}")
    return run.stdout


if __name__ == "__main__":
    sys.exit(main())
