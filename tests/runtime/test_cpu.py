"""How many threads are worth starting."""

import os
from pathlib import Path

import onnx
import pytest
from fake_model import picture_of, write_fake_model

from robustscanner import Recognizer, SessionOptions, cpu, onnx_session
from robustscanner.spec import HISTORY_KEY

CGROUP2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
CGROUP1 = (
    "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
)
GROUPS1 = "5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n0::/\n"


def tree(root: Path, mounts: str, groups: str, files: dict[str, str]) -> Path:
    """A root folder as a process sees it."""
    for name, text in {"proc/self/mounts": mounts, "proc/self/cgroup": groups, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "quota"),
    [
        (CGROUP2, "0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (CGROUP2, "0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (CGROUP2, "0::/\n", {}, None),  # the root of a machine has no limit
        (
            CGROUP2,
            "0::/a/b\n",
            {"sys/fs/cgroup/a/cpu.max": "150000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"},
            1.5,
        ),
        (CGROUP2, "0::/../x\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        (
            CGROUP1,
            GROUPS1,
            {
                f"sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_{n}_us": v
                for n, v in (("quota", "25000\n"), ("period", "50000"))
            },
            0.5,
        ),
        (  # inside a container: its own group is the root
            CGROUP1,
            GROUPS1,
            {f"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_{n}_us": v for n, v in (("quota", "300000"), ("period", "100000"))},
            3.0,
        ),
        (
            CGROUP1,
            GROUPS1,
            {f"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_{n}_us": v for n, v in (("quota", "-1"), ("period", "100000"))},
            None,
        ),
        (CGROUP2, "nonsense\n", {"sys/fs/cgroup/cpu.max": "nonsense"}, None),
    ],
)
def test_quota(tmp_path: Path, mounts: str, groups: str, files: dict[str, str], quota: float | None) -> None:
    assert cpu.cpu_quota(tree(tmp_path, mounts, groups, files)) == quota


def test_no_groups_no_quota(tmp_path: Path) -> None:
    assert cpu.cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "openmp", "threads"),
    [
        (8, None, None, 8),
        (8, 2.5, None, 2),
        (8, 0.5, None, 1),
        (2, 4.0, None, 2),
        (8, None, "3", 3),
        (8, None, "4,2", 4),
        (8, 2.0, "16", 2),
        (8, None, "0", 8),
        (8, None, "many", 8),
    ],
)
def test_threads(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, openmp: str | None, threads: int
) -> None:
    monkeypatch.setattr(cpu, "affinity_cores", lambda: affinity)
    monkeypatch.setattr(cpu, "cpu_quota", lambda: quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if openmp:
        monkeypatch.setenv("OMP_NUM_THREADS", openmp)
    assert SessionOptions().threads == threads


@pytest.mark.parametrize(
    ("threads", "quota", "asked", "spins"),
    [(2, None, True, "1"), (2, None, False, "0"), (2, 2.0, True, "1"), (2, 1.5, True, "0"), (1, 0.5, True, "0")],
)
def test_spinning_stays_within_the_quota(
    monkeypatch: pytest.MonkeyPatch, threads: int, quota: float | None, asked: bool, spins: str
) -> None:
    monkeypatch.setattr(onnx_session, "affinity_cores", lambda: 8)
    monkeypatch.setattr(onnx_session, "cpu_quota", lambda: quota)
    settings = onnx_session.native_settings(SessionOptions(threads=threads, spinning=asked))
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == spins


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_threads_follow_taskset(engine: Path) -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert SessionOptions().threads == 1
        with Recognizer(engine) as recognizer:
            assert recognizer.read(picture_of("dog")).text == "dog"
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", "fpu sse4_1 avx avx2 avx512f avx512bw", True),
        ("x86_64", "fpu avx2 avx512f avx512_vnni", False),
        ("AMD64", "fpu avx2 avx_vnni", False),
        ("x86_64", "fpu amx_int8", False),
        ("aarch64", "fp asimd", False),
        ("x86_64", None, False),  # unknown
    ],
)
def test_saturation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, flags: str | None, saturates: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    if flags is not None:
        tree(tmp_path, "", "", {"proc/cpuinfo": f"processor\t: 0\nflags\t\t: {flags}\n"})
    assert cpu.int8_saturates(tmp_path) == saturates


@pytest.mark.parametrize(("bits", "saturates", "warns"), [(8, True, True), (7, True, False), (8, False, False)])
def test_an_engine_that_saturates_says_so(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    bits: int,
    saturates: bool,
    warns: bool,
) -> None:
    path = write_fake_model(tmp_path / "fake.onnx")
    model = onnx.load(path)
    next(prop for prop in model.metadata_props if prop.key == HISTORY_KEY).value = f'[{{"weight_bits": {bits}}}]'
    onnx.save(model, path)
    monkeypatch.setattr(onnx_session, "int8_saturates", lambda: saturates)
    with Recognizer(path) as recognizer:
        assert recognizer.read(picture_of("dog")).text == "dog"
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == warns
    assert all("its 8-bit weights saturate on this CPU" in line and "--reduce-range" in line for line in said)
