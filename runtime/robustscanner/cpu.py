"""How much of this machine's CPU the process may use."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

_X86 = ("x86_64", "amd64", "i686")
_WHOLE_SUMS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})  # as Linux calls what adds 8-bit products in 32 bits
_MAX_SESSIONS = 8  # that nobody asked for: each takes some 100 MiB


def available_cores() -> int:
    """Threads worth starting: as many as cores are free to use, at least 1.

    That is less than the machine has under taskset, in a container with a CPU limit, and where OMP_NUM_THREADS says so.
    """
    limits = [float(affinity_cores()), cpu_quota() or float("inf"), float(_openmp_threads() or "inf")]
    return max(1, int(min(limits)))


def share_cores(sessions: int | None, threads: int | None) -> tuple[int, int]:
    """How many sessions a server for many clients opens on a CPU, and with how many threads each.

    One thread a session reads most words: several threads wait for each other in every layer.

    Args:
        sessions: that somebody asked for; None: one for each core, at most `_MAX_SESSIONS`.
        threads: of each, that somebody asked for; None: the cores are shared.
    """
    cores = available_cores()
    sessions = sessions or max(1, min(cores // (threads or 1), _MAX_SESSIONS))
    return sessions, threads or max(1, cores // sessions)


def affinity_cores() -> int:
    """Logical cores that this process may be put on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU seconds that the control groups of Linux (containers, systemd) allow this process a second; None: any number.

    The smallest of the limits of its own group and of those around it counts; see the kernel's cgroup-v2.rst, and
    sched-bwc.rst for version 1. A container often sees its own group as the root.
    """
    try:
        mounts = (root / "proc/self/mounts").read_text().splitlines()
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = [quota for folder in _group_folders(root, mounts, groups) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def int8_saturates(root: Path = Path("/")) -> bool:
    """Whether this CPU adds products of bytes and 8-bit weights in 16 bits, where they can saturate.

    That is x86 without VNNI or AMX. Unknown, and so False, where Linux does not tell.
    """
    if platform.machine().lower() not in _X86:
        return False
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set(_WHOLE_SUMS))
    return not flags & _WHOLE_SUMS


def _group_folders(root: Path, mounts: list[str], groups: list[str]) -> Iterator[Path]:
    """Folders of the process' CPU groups, inner ones first; some may not exist as seen from inside a container."""
    for mount in mounts:
        _, place, kind, options, *_ = [*mount.split(" "), "", "", "", ""]
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            for group in groups:  # "0::/path" is version 2, "4:cpu,cpuacct:/path" version 1
                _, controllers, path = [*group.split(":", 2), "", ""][:3]
                if "cpu" in controllers.split(",") if kind == "cgroup" else not controllers:
                    inner = Path(path.lstrip("/"))
                    yield from (root / place.lstrip("/") / folder for folder in (inner, *inner.parents))


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()  # "50000 100000", or "max 100000"
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if quota != "max" and float(quota) > 0 else None
    except (OSError, ValueError):
        return None


def _openmp_threads() -> int | None:
    """OMP_NUM_THREADS, the first number of a list; None: not set, or no number from 1."""
    text = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None
