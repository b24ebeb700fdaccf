"""What a figure was measured on; goes into every result file."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from robustscanner.session import available_cores

PACKAGES = ("robustscanner", "numpy", "opencv-python-headless", "onnxruntime", "rapidocr-onnxruntime")


def describe() -> dict[str, object]:
    """Processor, cores, versions and commit, JSON-ready."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    extras = [flag for flag in ("avx2", "avx512_vnni", "amx_int8") if f" {flag}" in flags]
    return f"{names[0] if names else platform.processor()} ({', '.join(extras)})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """With a mark when the tree holds uncommitted changes."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
