"""Engines for TensorRT that do not fit this machine are refused in one sentence, before TensorRT sees them."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_gpu import FakeGpu, installed, plan

from convert.graph.split import split
from robustscanner import Recognizer
from robustscanner.engine import BatchRange, EngineManifest, check_host, file_sha256, open_engine
from robustscanner.errors import EngineError
from robustscanner.onnx_session import OnnxSession
from robustscanner.session import GpuOptions, HostFacts, SessionOptions
from robustscanner.spec import ModelSpec

TINY = Path(__file__).parents[1] / "tiny" / "tiny.onnx"
OPTIONS = SessionOptions(threads=1, gpu=GpuOptions(steps_per_launch=2, lookahead=0))
ORIN = {"name": "Orin", "compute_capability": "sm_87"}
PLANS = ("encoder.plan", "decoder.plan")


def manifest_of(version: str, device: Mapping[str, str], backend: str = "tensorrt") -> EngineManifest:
    return EngineManifest(
        model=ModelSpec("tiny"),
        precision="fp16",
        batch=BatchRange(1, 1, 8),
        backend=backend,
        versions={backend: version},
        device=device,
        accuracy=None,
        history=(),
        files={},
    )


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    with OnnxSession(TINY, OPTIONS) as session:
        return session.spec


@pytest.fixture
def bundle(tmp_path: Path, spec: ModelSpec) -> Path:
    """An engine for the GPU that `FakeGpu()` is."""
    folder = tmp_path / "word.engine"
    folder.mkdir()
    for name, half in zip(PLANS, split(onnx.load(TINY), spec), strict=True):
        (folder / name).write_bytes(plan(half))
    files = {name: file_sha256(folder / name) for name in PLANS}
    manifest = replace(manifest_of("10.3.0", ORIN), model=spec, files=files)
    (folder / "engine.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


@pytest.fixture
def change(bundle: Path) -> Callable[..., None]:
    """Edits engine.json."""

    def edit(**values: Any) -> None:
        path = bundle / "engine.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")

    return edit


def refusal(bundle: Path) -> str:
    """The one line with which it is refused."""
    with pytest.raises(EngineError) as caught:
        open_engine(bundle, OPTIONS)
    line = str(caught.value)
    assert line.startswith(str(bundle))
    assert "\n" not in line
    return line.removeprefix(str(bundle))


@pytest.mark.parametrize(
    ("built", "here"),
    [
        ("10.3.0", "10.3.0"),
        ("10.3.0.30", "10.3.0"),  # pip's version has a build number, the one of JetPack none
        ("10.3.0", "10.3.0.30"),
        ("10.13.3.9", "10.13.3.9"),
        ("11.0.0.dev", "11.0.0.dev"),
    ],
)
def test_same_version_opens(built: str, here: str) -> None:
    check_host(manifest_of(built, ORIN), HostFacts(here, "sm_87", "Orin"))


@pytest.mark.parametrize(
    ("built", "here"),
    [
        ("10.3.0", "11.4.0"),
        ("10.3.0", "10.3.1"),
        ("10.3.0", "10.13.3.9"),
        ("10.13.3.9", "10.13.3.8"),
        ("10.3", "10.3.0"),
        ("11.0.0.dev", "11.0.0"),
    ],
)
def test_other_versions_do_not(built: str, here: str) -> None:
    with pytest.raises(EngineError) as caught:
        check_host(manifest_of(built, ORIN), HostFacts(here, "sm_87", "Orin"))
    assert str(caught.value) == (
        f"built by TensorRT {built} for sm_87 (Orin); this machine has {here} and sm_87 (Orin). "
        "Engines do not travel: run convert/build_engine.py here"
    )


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [
        ("10.3.0", "10.3.0", True),
        ("10.3.0", "10.16.1", True),
        ("8.6.1", "8.6.2", True),
        ("10.16.1", "10.3.0", False),  # backward
        ("10.3.0", "11.4.0", False),
        ("11.0.0", "10.3.0", False),
    ],
)
def test_version_compatible_plans_open_with_later_ones_of_their_major(built: str, here: str, fits: bool) -> None:
    manifest = manifest_of(built, ORIN | {"version_compatible": "true"})
    if fits:
        check_host(manifest, HostFacts(here, "sm_87", "Orin"))
    else:
        with pytest.raises(EngineError, match=f"built by TensorRT {built} .* this machine has {here} "):
            check_host(manifest, HostFacts(here, "sm_87", "Orin"))


def test_other_gpu() -> None:
    with pytest.raises(EngineError) as caught:
        check_host(manifest_of("10.3.0", ORIN), HostFacts("10.3.0", "sm_90", "H200"))
    assert str(caught.value) == (
        "built by TensorRT 10.3.0 for sm_87 (Orin); this machine has 10.3.0 and sm_90 (H200). "
        "Engines do not travel: run convert/build_engine.py here"
    )


@pytest.mark.parametrize(("here", "fits"), [("sm_86", True), ("sm_89", True), ("sm_80", False), ("sm_8", False)])
def test_engines_for_several_gpus(here: str, fits: bool) -> None:
    manifest = manifest_of("1.7.1.116", {"name": "any of these", "targets": "sm_86,sm_89"}, "tensorrt-rtx")
    host = HostFacts("1.7.1.116", here, "RTX")
    if fits:
        check_host(manifest, host)
    else:
        with pytest.raises(EngineError, match=f"TensorRT-RTX 1.7.1.116 for sm_86,sm_89 .* and {here} "):
            check_host(manifest, host)


def test_engine_opens_and_reads(bundle: Path) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (6, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with installed(FakeGpu()), Recognizer(bundle, options=OPTIONS) as recognizer:
        text = recognizer.read(picture).text
    with Recognizer(TINY, options=OPTIONS) as recognizer:
        assert recognizer.read(picture).text == text != ""


@pytest.mark.parametrize(
    ("gpu", "says"),
    [
        (
            FakeGpu(compute_capability=(9, 0)),
            "this machine has 10.3.0 and sm_90 (stand-in driver). Engines do not travel",
        ),
        (FakeGpu(devices=0), "no NVIDIA GPU or driver here (cuInit failed: no CUDA-capable device is detected); use"),
    ],
)
def test_machines_that_do_not_fit(bundle: Path, gpu: FakeGpu, says: str) -> None:
    with installed(gpu):
        assert says in refusal(bundle)
    assert not gpu.calls["deserialize_cuda_engine"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"versions": {}}, "does not say which TensorRT and GPU it was built for; build it again"),
        ({"device": {"name": "Orin"}}, "does not say which TensorRT and GPU it was built for; build it again"),
        ({"files": {}}, "engine.json lists no encoder.plan; build it again"),
        (
            {"backend": "tensorrt-rtx"},
            "made for TensorRT-RTX, but only TensorRT is installed; pip install tensorrt-rtx",
        ),
    ],
)
def test_manifests_that_do_not_fit(bundle: Path, change: Callable[..., None], values: Any, says: str) -> None:
    change(**values)
    with installed(FakeGpu()) as gpu:
        sys.modules["tensorrt"].__spec__ = object()  # type: ignore[assignment]  # as an installed module has
        assert says in refusal(bundle)
    assert not gpu.calls["deserialize_cuda_engine"]


def test_version_compatible_engine_runs_only_when_its_code_is_trusted(
    bundle: Path, change: Callable[..., None]
) -> None:
    change(device=ORIN | {"version_compatible": "true"})
    picture = np.zeros((48, 96, 3), np.uint8)
    with installed(FakeGpu()) as gpu:
        assert "carries code that would run here; if you trust it, give --allow-host-code" in refusal(bundle)
        assert not gpu.calls["deserialize_cuda_engine"]
        trusting = replace(OPTIONS, gpu=replace(OPTIONS.gpu, host_code=True))
        with Recognizer(bundle, options=trusting) as recognizer:
            recognizer.read(picture)


def test_the_other_flavour_is_installed(bundle: Path) -> None:
    with installed(FakeGpu(), "tensorrt-rtx"):
        sys.modules["tensorrt_rtx"].__spec__ = object()  # type: ignore[assignment]
        assert "made for TensorRT, but only TensorRT-RTX is installed; pip install tensorrt" in refusal(bundle)


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("tensorrt", "TensorRT cannot be imported (import of tensorrt halted; None in sys.modules); pip install"),
        ("pycuda.driver", "TensorRT needs PyCUDA, which cannot be imported"),
    ],
)
def test_missing_libraries(bundle: Path, monkeypatch: pytest.MonkeyPatch, missing: str, says: str) -> None:
    with installed(FakeGpu()):
        monkeypatch.setitem(sys.modules, missing, None)
        assert says in refusal(bundle)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("size", [0, 100, -1])
def test_truncated_plan(bundle: Path, name: str, size: int) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes()[:size])
    with installed(FakeGpu()) as gpu:
        assert refusal(bundle).startswith(f"/{name}: damaged or replaced (its SHA-256 is not the one in engine.json)")
    assert not gpu.calls["deserialize_cuda_engine"]


def test_missing_plan(bundle: Path) -> None:
    (bundle / "decoder.plan").unlink()
    with installed(FakeGpu()):
        assert refusal(bundle).startswith("/decoder.plan: missing, though engine.json lists it; build it again")
