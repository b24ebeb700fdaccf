"""CPUs to run Python on from here: this one, with less shown than it has, or emulated by Debian's qemu-user."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from shutil import which

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PLACE = ROOT / "build" / "cpus"
ARM64 = PLACE / "arm64"
ONLY_AVX2 = PLACE / "only_avx2.so"


@dataclass(frozen=True)
class Cpu:
    """A CPU, and how to run Python on it."""

    name: str
    python: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    tests: bool = False  # has PyTorch and pytest

    @property
    def emulated(self) -> bool:
        """Slow, then."""
        return self.python[0].startswith("qemu")

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs a Python program there."""
        environment = {**os.environ, **dict(self.environment)}
        return subprocess.run([*self.python, *map(str, arguments)], env=environment, text=True, capture_output=True)


HOST = Cpu("this CPU", (sys.executable,))
AVX2 = Cpu("AVX2 only (this CPU, the rest hidden)", HOST.python, (("LD_PRELOAD", str(ONLY_AVX2)),), tests=True)
_PRELOAD = ("-E", f"LD_PRELOAD={ONLY_AVX2}", "-E", "ONLY_AVX2_EMULATED=1")  # hides /proc/cpuinfo
_HASWELL = ("qemu-x86_64", "-cpu", "Haswell", *_PRELOAD, sys.executable)
HASWELL = Cpu("Haswell (AVX2 only), emulated", _HASWELL, tests=True)
ARM = Cpu(
    "Arm (aarch64), emulated",
    ("qemu-aarch64", "-L", str(ARM64), str(ARM64 / "usr" / "bin" / "python3.11")),
    (("PYTHONPATH", str(ARM64 / "packages")), ("PYTHONHOME", str(ARM64 / "usr"))),
)


def other_cpus(*, emulate_x86: bool) -> list[Cpu]:
    """Those that can be had here; says which cannot, and why."""
    found = []
    if x86 := _old_x86(emulate=emulate_x86):
        found.append(x86)
    else:
        print(
            f"{HASWELL.name}: left out; it takes an x86 machine, a C compiler, and qemu-x86_64: apt install qemu-user"
        )
    if which("qemu-aarch64") and subprocess.run([str(HERE / "arm64.sh")]).returncode == 0:
        found.append(ARM)
    else:
        print(f"{ARM.name}: left out, no qemu-aarch64 or no packages for it; apt install qemu-user")
    return found


def _old_x86(*, emulate: bool) -> Cpu | None:
    """Hiding what is newer costs no time, but not every CPU and kernel can."""
    compiler = which("cc")
    if os.uname().machine != "x86_64" or not compiler:
        return None
    PLACE.mkdir(parents=True, exist_ok=True)
    source = str(HERE / "only_avx2.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(ONLY_AVX2), source, "-ldl"], check=True)
    if not emulate and AVX2.run("-c", "").returncode == 0:
        return AVX2
    return HASWELL if which("qemu-x86_64") else None
