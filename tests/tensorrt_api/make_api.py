"""Writes down which names each TensorRT has, so that tests without a GPU can hold our calls against all of them.

The wheels of the bindings come without the libraries they call. Empty stand-ins for these are enough to import them;
nothing may be called then, but every class and every name is there. Needs pip, gcc and binutils on an x86-64 Linux:

    python tests/tensorrt_api/make_api.py
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).parent

# What the kit touches, or could; one text, as a list would take a line for each.
_CLASSES = (
    "Builder BuilderFlag ComputeCapability CudaGraphStrategy DataType DeviceType Dims EngineInspector EngineStat "
    "EngineValidity ExecutionContextAllocationStrategy HardwareCompatibilityLevel IBuilderConfig ICudaEngine "
    "IErrorRecorder IExecutionContext IHostMemory IInt8Calibrator IInt8EntropyCalibrator2 ILayer ILogger "
    "INetworkDefinition IOptimizationProfile IProfiler IProgressMonitor IRuntimeConfig ITensor ITimingCache "
    "LayerInformationFormat LayerType Logger MemoryPoolType NetworkDefinitionCreationFlag OnnxParser OnnxParserFlag "
    "ParserError PreviewFeature ProfilingVerbosity QuantizationFlag Runtime RuntimeCache RuntimePlatform TacticSource "
    "TempfileControlFlag TensorFormat TensorIOMode TensorLocation"
)


@dataclass(frozen=True)
class Bindings:
    """One version's wheel."""

    product: str  # "tensorrt" or "tensorrt-rtx"
    package: str  # on PyPI
    version: str

    @property
    def module(self) -> str:
        """What the wheel's folder is called."""
        return f"{self.product.replace('-', '_')}_bindings"

    @property
    def path(self) -> Path:
        """Where its names are written."""
        return FOLDER / f"{self.version if self.product == 'tensorrt' else f'rtx-{self.version}'}.json"


BINDINGS = (
    Bindings("tensorrt", "tensorrt-bindings", "8.6.1"),
    Bindings("tensorrt", "tensorrt-cu12-bindings", "10.3.0"),
    Bindings("tensorrt", "tensorrt-cu12-bindings", "10.13.3.9"),
    Bindings("tensorrt", "tensorrt-cu12-bindings", "10.16.1.11"),
    Bindings("tensorrt", "tensorrt-cu13-bindings", "11.4.0.106"),
    Bindings("tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "1.7.1.116"),
)

# Run in a process of its own: two versions do not fit into one.
_DUMP = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
public = lambda thing: sorted(name for name in dir(thing) if not name.startswith("_"))
classes = {name: public(getattr(module, name)) for name in sys.argv[2:] if hasattr(module, name)}
print(json.dumps({"module": public(module), "classes": classes}))
"""


def main() -> None:
    """Writes one JSON file for every wheel."""
    for bindings in BINDINGS:
        with TemporaryDirectory() as scratch:
            names = read_names(bindings, Path(scratch))
        data = {"version": bindings.version, "product": bindings.product, **names}
        bindings.path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        print(f"{bindings.path.name}: {len(data['classes'])} classes, {len(data['module'])} names in the module")


def read_names(bindings: Bindings, folder: Path) -> dict[str, object]:
    """Downloads a wheel, gives it stand-ins for its libraries, imports it, lists its names."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    _run([*pip, "--dest", str(folder), f"{bindings.package}=={bindings.version}"])
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    for library in (folder / bindings.module).glob("*.so"):
        _stand_in(library, folder)
    environment = {**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder)}
    names: dict[str, object] = json.loads(
        _run([sys.executable, "-c", _DUMP, bindings.module, *_CLASSES.split()], environment=environment)
    )
    return names


def _stand_in(library: Path, folder: Path) -> None:
    """Makes the NVIDIA libraries that `library` asks for; the first holds every function it calls in any of them."""
    needed = re.findall(r"NEEDED.*\[(lib(?:nv|tensorrt)\S+)\]", _run(["readelf", "-d", str(library)]))
    symbols = _run(["nm", "-D", "--undefined-only", str(library)])
    functions = re.findall(r" U ((?:create|get|init|_ZN)\w+)$", symbols, re.MULTILINE)  # those of libc say @VERSION
    code = folder / "stand_in.c"
    code.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions), encoding="utf-8")
    for name in needed:
        _run(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(code)])
        code.write_text("", encoding="utf-8")


def _run(command: Sequence[str], *, environment: dict[str, str] | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


if __name__ == "__main__":
    main()
