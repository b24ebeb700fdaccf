"""What a figure was measured on; goes into every result file."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from robustscanner.cpu import available_cores

PACKAGES = (
    "robustscanner",
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
    "rapidocr",
    "rapidocr-onnxruntime",
    "openvino",
)
_CPU = Path("/sys/devices/system/cpu")
_ZONES = Path("/sys/class/thermal")
_GPU_FIELDS = "name,driver_version,power.limit,clocks.sm,clocks.mem"


def describe() -> dict[str, object]:
    """Processor, clocks, power mode, versions and commit, JSON-ready; what a machine does not tell is left out."""
    facts = {
        "processor": _processor(),
        "cores": available_cores(),
        "memory_mib": _memory_mib(),
        "governor": _read(_CPU / "cpu0/cpufreq/scaling_governor"),
        "clock_mhz": clock_mhz(),
        "load": [round(value, 2) for value in os.getloadavg()],  # of others too: near 0 is a quiet machine
        "power_mode": _output("nvpmodel", "-q"),  # Jetson
        "gpu": _output("nvidia-smi", f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def clock_mhz() -> int | None:
    """How fast the first core runs at this moment."""
    if text := _read(_CPU / "cpu0/cpufreq/scaling_cur_freq"):
        return round(int(text) / 1000)
    lines = [line for line in (_read(Path("/proc/cpuinfo")) or "").splitlines() if line.startswith("cpu MHz")]
    return round(float(lines[0].partition(":")[2])) if lines else None


def temperature_c() -> float | None:
    """Of the hottest sensor, in degrees Celsius."""
    found = [_read(zone / "temp") for zone in _ZONES.glob("thermal_zone*")] if _ZONES.exists() else []
    return max((int(text) / 1000 for text in found if text), default=None)


def power() -> str | None:
    """What a Jetson says of its power at this moment: a line of tegrastats."""
    if not shutil.which("tegrastats"):
        return None
    with subprocess.Popen(["tegrastats", "--interval", "200"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        process.terminate()
    return line


def _processor() -> str:
    lines = (_read(Path("/proc/cpuinfo")) or "").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    names += [_read(Path("/proc/device-tree/model")) or platform.processor()]  # some ARM boards
    flags = next((line for line in lines if line.startswith("flags")), "")
    extras = [flag for flag in ("avx2", "avx512_vnni", "amx_int8") if f" {flag}" in flags]
    return f"{names[0]} ({', '.join(extras)})" if extras else names[0]


def _memory_mib() -> int | None:
    lines = (_read(Path("/proc/meminfo")) or "").splitlines()
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("MemTotal")), None)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip("\0\n ")
    except (OSError, UnicodeDecodeError):
        return None


def _output(*command: str) -> str | None:
    """What a program prints, on one line; None where it is missing or fails."""
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(line.strip() for line in found.stdout.splitlines() if line.strip())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """With a mark when the tree holds uncommitted changes."""
    return _output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*")
