"""Opens an engine: reads its `engine.json`, checks it, and picks the session that can run it."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from robustscanner.errors import EngineError, SpecError, shown
from robustscanner.scoring import ALPHANUMERIC
from robustscanner.session import HostFacts, Session, SessionOptions
from robustscanner.spec import ModelSpec

ENGINE_FORMAT = 1  # of engine.json; raised when an older reader would misread a newer file
MANIFEST_NAME = "engine.json"
ONNX_NAME = "model.onnx"  # in a bundle for ONNX Runtime
ENCODER_NAME, DECODER_NAME = "encoder.plan", "decoder.plan"  # in a bundle for TensorRT or TensorRT-RTX
KERNELS_NAME, WEIGHTS_NAME = "decoder.fatbin", "decoder.weights"  # in one that decodes in one launch
FRONT_NAME, BACK_NAME, ROWS_NAME = "front.plan", "back.plan", "rows.weights"  # and whose row LSTM is one, too
SINGLE_NAME = "decoder-1.plan"  # the same step, for just one picture
PRECISIONS = ("fp32", "fp16", "int8")
BACKENDS = ("onnxruntime", "tensorrt", "tensorrt-rtx")

_REBUILD = "build it again with convert/build_engine.py"
_CHUNK_BYTES = 1 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchRange:
    """How many pictures one run takes."""

    min: int
    opt: int  # what the engine is tuned for
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise EngineError(f"batch: needs 1 <= min <= opt <= max, not {self.min}, {self.opt}, {self.max}")


@dataclass(frozen=True)
class EngineAccuracy:
    """This engine against the FP32 model it came from, on the calibration set."""

    words: int
    fp32_rate: float  # words that the FP32 model reads correctly, 0…1
    engine_rate: float  # words that this engine reads correctly, 0…1
    agreement: float  # words that both read alike, right or wrong, 0…1
    simulated: bool = False  # no GPU was there: ONNX Runtime computed what the engine was built from, types included
    protocol: str = ALPHANUMERIC.name  # how words were compared, see `scoring.PROTOCOLS`; engines of 0.1 do not say


@dataclass(frozen=True)
class EngineManifest:
    """What is in an engine's `engine.json`, in its order."""

    model: ModelSpec
    precision: str  # one of PRECISIONS
    batch: BatchRange
    backend: str  # one of BACKENDS
    versions: Mapping[str, str]  # library -> version that built it, e.g. "tensorrt": "10.3.0.30"
    device: Mapping[str, str]  # where it was built: "name", and for a GPU "compute_capability"
    accuracy: EngineAccuracy | None  # None when it was not measured
    history: tuple[Mapping[str, Any], ...]  # steps in order: "step", "tool", "version", "input", "input_sha256", …
    files: Mapping[str, str]  # file name in the bundle -> SHA-256, hexadecimal
    format: int = ENGINE_FORMAT

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise EngineError(f"unknown precision {shown(self.precision)}; known are {', '.join(PRECISIONS)}")
        if self.backend not in BACKENDS:
            raise EngineError(f"unknown backend {shown(self.backend)}; known are {', '.join(BACKENDS)}: update the kit")
        for name, digest in self.files.items():
            if not _is_plain_name(name):
                raise EngineError(f"file name {shown(name)} leaves the engine's folder; {_REBUILD}")
            if not re.fullmatch("[0-9a-f]{64}", digest):
                raise EngineError(f"{name}: {shown(digest)} is no SHA-256; {_REBUILD}")

    def to_json(self) -> str:
        """The text of `engine.json`; the inverse of `from_json`."""
        data = {"format": self.format, **asdict(self), "model": self.model.to_dict()}
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "EngineManifest":
        """Raises `EngineError` naming what is missing, unknown or contradictory."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EngineError(f"not JSON ({error}); {_REBUILD}") from None
        if not isinstance(data, dict) or data.get("format") != ENGINE_FORMAT:
            number = data.get("format") if isinstance(data, dict) else None
            cure = f"this version reads {ENGINE_FORMAT}; update the kit, or {_REBUILD}"
            raise EngineError(f"format {shown(number)}, but {cure}")
        _check_keys(cls, data, "")
        try:
            model = ModelSpec.from_dict(data["model"])
        except SpecError as error:
            raise EngineError(f"model: {error}") from None
        batch, accuracy = data["batch"], data["accuracy"]
        for name in ("versions", "device", "files"):
            _check_texts(data[name], name)
        if not isinstance(data["history"], list) or not all(isinstance(step, dict) for step in data["history"]):
            raise EngineError(f"history: not a list of JSON objects; {_REBUILD}")
        parts = {
            "model": model,
            "batch": _build_numbers(BatchRange, batch, "batch"),
            "accuracy": None if accuracy is None else _build_numbers(EngineAccuracy, accuracy, "accuracy"),
            "history": tuple(data["history"]),
        }
        return cls(**{**data, **parts})


def default_engine() -> Path:
    """The small trained model that ships with the library.

    Raises:
        EngineError: this installation lacks it.
    """
    path = Path(__file__).parent / "models" / "small.onnx"
    if not path.is_file():
        raise EngineError(f"{path}: the shipped model is missing; install robustscanner again or name an engine")
    return path


def open_engine(path: str | Path, options: SessionOptions) -> Session:
    """Opens a bundle `NAME.engine/` or a bare `NAME.onnx`; what can be checked is, before anything is loaded.

    Raises:
        EngineError: one line with cause and cure.
    """
    path = Path(path)
    if path.is_dir():
        return _open_bundle(path, options)
    if not path.is_file():
        raise EngineError(f"{path}: no such engine; {_REBUILD}, or check the path")
    if path.suffix.lower() != ".onnx":
        raise EngineError(f"{path}: neither a NAME.onnx file nor a NAME.engine folder; {_REBUILD}")
    return _open_onnxruntime(path, options)


def read_manifest(folder: Path) -> EngineManifest:
    """Reads a bundle's `engine.json` and checks its files against it.

    Raises:
        EngineError: an `engine.json` that is missing or unreadable; files that are missing, damaged or replaced.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = EngineManifest.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineError(f"{folder}: holds no {MANIFEST_NAME}, so it is no engine; {_REBUILD}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"{path}: cannot be read ({error}); {_REBUILD}") from None
    except EngineError as error:
        raise EngineError(f"{path}: {error}") from None
    for name, digest in manifest.files.items():
        _check_file(folder / name, digest)
    return manifest


def runs_on_gpu(engine: Path) -> bool:
    """Whether an engine is for NVIDIA GPUs; anything but a folder is an ONNX file, or not there.

    Raises:
        EngineError: the folder is no engine.
    """
    return engine.is_dir() and read_manifest(engine).backend != "onnxruntime"


def check_host(manifest: EngineManifest, host: HostFacts) -> None:
    """Checks whether a TensorRT engine fits this machine; TensorRT itself would only say that it cannot load it.

    Raises:
        EngineError: it was built by another version, or for another GPU.
    """
    product = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}[manifest.backend]
    built, device = manifest.versions.get(manifest.backend), manifest.device
    if built is None or not {"targets", "compute_capability"} & set(device):
        raise EngineError(f"{MANIFEST_NAME} does not say which {product} and GPU it was built for; {_REBUILD}")
    version_compatible = device.get("version_compatible") == "true"
    if _fits_version(built, host.version, version_compatible=version_compatible) and _fits_gpu(
        device, host.compute_capability
    ):
        return
    target = device.get("targets", device.get("compute_capability", ""))
    maker = device.get("name", "another GPU")
    raise EngineError(
        f"built by {product} {built} for {target} ({maker}); this machine has {host.version} and "
        f"{host.compute_capability} ({host.name}). Engines do not travel: run convert/build_engine.py here"
    )


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _open_bundle(folder: Path, options: SessionOptions) -> Session:
    manifest = read_manifest(folder)
    logger.info("%s: %s for %s, built on %s", folder, manifest.precision, manifest.backend, dict(manifest.device))
    if manifest.backend != "onnxruntime":
        return _open_tensorrt(folder, manifest, options)
    if ONNX_NAME not in manifest.files:
        raise EngineError(f"{folder}: {MANIFEST_NAME} lists no {ONNX_NAME}; {_REBUILD}")
    session = _open_onnxruntime(folder / ONNX_NAME, options)
    if session.spec != manifest.model:
        session.close()
        raise EngineError(f"{folder}: {MANIFEST_NAME} and {ONNX_NAME} describe different models; {_REBUILD}")
    return session


def _open_onnxruntime(path: Path, options: SessionOptions) -> Session:
    try:
        from robustscanner.onnx_session import OnnxSession
    except ImportError as error:
        cause = error.__cause__
        if cause and not isinstance(cause, Exception):  # a signal while its C++ half starts: pybind11 disguises it
            raise cause from None
        cure = "pip install onnxruntime, or pip install 'robustscanner[cpu]'"
        raise EngineError(f"{path}: ONNX Runtime cannot be imported ({error}); {cure}") from None
    return OnnxSession(path, options)


def _open_tensorrt(folder: Path, manifest: EngineManifest, options: SessionOptions) -> Session:
    from robustscanner.gpu.tensorrt_session import TensorRTSession, host_facts

    for name in (ENCODER_NAME, DECODER_NAME):
        if name not in manifest.files:
            raise EngineError(f"{folder}: {MANIFEST_NAME} lists no {name}; {_REBUILD}")
    if manifest.device.get("version_compatible") == "true" and not options.gpu.host_code:
        cure = "if you trust it, give --allow-host-code, or GpuOptions(host_code=True) from Python"
        raise EngineError(f"{folder}: a version-compatible engine, which carries code that would run here; {cure}")
    try:
        check_host(manifest, host_facts(manifest.backend, options.gpu.device))
    except EngineError as error:
        raise EngineError(f"{folder}: {error}") from None
    names = [name for name in (ENCODER_NAME, DECODER_NAME, SINGLE_NAME) if name in manifest.files]
    plans = [folder / name for name in names]
    kernel_files = (KERNELS_NAME, WEIGHTS_NAME, FRONT_NAME, BACK_NAME, ROWS_NAME)
    kernels = tuple(folder / name for name in kernel_files if name in manifest.files)
    return TensorRTSession(plans, manifest.model, backend=manifest.backend, options=options, kernels=kernels)


def _fits_version(built: str, here: str, *, version_compatible: bool) -> bool:
    """Whether a plan opens with this version. A build number counts where both have one: Jetson's name none."""
    try:
        numbers, own = ([int(part) for part in version.split(".")] for version in (built, here))
    except ValueError:
        return built == here
    if version_compatible:
        return own[0] == numbers[0] and own >= numbers
    shared = min(len(numbers), len(own))
    return shared >= 3 and numbers[:shared] == own[:shared]


def _fits_gpu(device: Mapping[str, str], compute_capability: str) -> bool:
    return compute_capability in device.get("targets", device.get("compute_capability", "")).split(",")


def _check_file(path: Path, digest: str) -> None:
    if not path.is_file():
        raise EngineError(f"{path}: missing, though {MANIFEST_NAME} lists it; {_REBUILD}")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror or error}") from None
    if found != digest:
        raise EngineError(f"{path}: damaged or replaced (its SHA-256 is not the one in {MANIFEST_NAME}); {_REBUILD}")


def _is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and not re.search(r"[/\\:\0]", name)


def _check_keys(kind: type, data: Any, where: str) -> None:
    if not isinstance(data, dict):
        raise EngineError(f"{where}: not a JSON object; {_REBUILD}")
    known = {f.name for f in fields(kind)}
    required = {f.name for f in fields(kind) if f.default is MISSING}
    if not required <= set(data) <= known:
        missing, unknown = sorted(required - set(data)), sorted(set(data) - known)
        raise EngineError(f"{where or 'top level'}: missing {shown(missing)}, unknown {shown(unknown)}; {_REBUILD}")


def _check_texts(data: Any, where: str) -> None:
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise EngineError(f"{where}: not a JSON object of texts; {_REBUILD}")


def _build_numbers(kind: type, data: Any, where: str) -> Any:
    """A dataclass of numbers; int or bool where it says so."""
    _check_keys(kind, data, where)
    for f in fields(kind):
        value = data.get(f.name, f.default)
        allowed: Any = (int, float) if f.type is float else f.type
        if not isinstance(value, allowed) or isinstance(value, bool) != (f.type is bool):
            raise EngineError(f"{where}: {f.name} is {shown(value)}, not a number that fits; {_REBUILD}")
    return kind(**data)
