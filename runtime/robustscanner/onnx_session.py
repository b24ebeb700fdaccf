"""Runs the one graph on the CPU: the only file that uses ONNX Runtime."""

import ctypes
import logging
import os
import re
import weakref
from pathlib import Path
from typing import Any

import onnxruntime as ort  # type: ignore[import-untyped]

from robustscanner.cpu import affinity_cores, cpu_quota, int8_saturates
from robustscanner.errors import ConstraintError, EngineError, SpecError
from robustscanner.session import (
    COLUMNS,
    STEP_LOGITS,
    Allowed,
    Images,
    Probabilities,
    Scores,
    SessionOptions,
    Tokens,
    Trace,
    Widths,
    check_result,
    softmax,
)
from robustscanner.spec import HISTORY_KEY, SPEC_KEY, ModelSpec

_EXPORT = "export it with convert/export_onnx.py"
_FATAL = 4  # ONNX Runtime's log severity: whatever is wrong arrives as an exception anyway

logger = logging.getLogger(__name__)

if os.environ.get("ORT_DISABLE_TELEMETRY", "0") != "0" and hasattr(ort, "disable_telemetry_events"):
    ort.disable_telemetry_events()  # it was imported before this library, which then came too late with the variable


class OnnxSession:
    """One ONNX file of ours, opened with ONNX Runtime; see `session.Session`.

    Raises:
        EngineError: not a readable ONNX file, not one of our models, or beyond this ONNX Runtime.
    """

    def __init__(self, path: str | Path, options: SessionOptions) -> None:
        self.path = Path(path)
        self.max_batch: int | None = None
        self._options = options
        self._place = self.path.resolve()  # where a forked process finds it
        self._forked = False
        self._session: Any = _open(self.path, options)
        _open_sessions.add(self)
        self.spec = _read_spec(self.path, self._session)
        _check_graph(self.path, self._session, self.spec)
        _warn_of_saturation(self.path, self._session)
        optional = self._session.get_overridable_initializers()
        self.can_constrain = any(node.name == "allowed" for node in optional)
        self._outputs = {node.name for node in self._session.get_outputs()}
        logger.info("%s: %s, ONNX Runtime %s, %s", self.path, self.spec.name, ort.__version__, options)

    def __enter__(self) -> "OnnxSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the graph."""
        self._session, self._forked = None, False

    def forget(self) -> None:
        """In a forked process: lets the graph be, as its threads live on in the parent only."""
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))  # never freed: that waits for the threads
            self._session, self._forked = None, True

    def run(self, images: Images, valid_width: Widths, allowed: Allowed | None = None) -> tuple[Tokens, Scores]:
        """See `session.Session.run`."""
        inputs = {"images": images, "valid_width": valid_width} | ({} if allowed is None else {"allowed": allowed})
        tokens, scores = self._run(["tokens", "scores"], inputs)
        self._check(len(images), tokens, scores)
        return tokens, scores

    def tell(
        self, images: Images, valid_width: Widths, allowed: Allowed
    ) -> tuple[Tokens, Scores, Probabilities] | None:
        """`run` over one canvas, and the probability of each class at each step that ran; None: an older graph."""
        if STEP_LOGITS not in self._outputs:
            return None
        inputs = {"images": images, "valid_width": valid_width, "allowed": allowed}
        tokens, scores, logits = self._run(["tokens", "scores", STEP_LOGITS], inputs)
        self._check(len(images), tokens, scores)
        return tokens, scores, softmax(logits[:, 0])

    def trace(self, images: Images, valid_width: Widths, allowed: Allowed) -> Trace:
        """What a run over one canvas comes by; arguments as `run`'s.

        Raises:
            ConstraintError: the graph is of an older export, and does not say.
            EngineError: the run failed.
        """
        if STEP_LOGITS not in self._outputs:
            raise ConstraintError(
                f"{self.path}: older than letters; export the model again with convert/export_onnx.py, or build the "
                "engine again with convert/build_engine.py"
            )
        names = [name for name in (STEP_LOGITS, COLUMNS) if name in self._outputs]
        logits, *columns = self._run(names, {"images": images, "valid_width": valid_width, "allowed": allowed})
        return Trace(softmax(logits[:, 0]), columns[0][0] if columns else None)

    def _check(self, count: int, tokens: Tokens, scores: Scores) -> None:
        try:
            check_result(self.spec, count, tokens, scores)
        except EngineError as error:
            raise EngineError(f"{self.path}: {error}") from None

    def _run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
        if self._forked:
            self._session, self._forked = _open(self._place, self._options), False
        if self._session is None:
            raise EngineError(f"{self.path}: already closed; open it again")
        try:
            return list(self._session.run(names, inputs))
        except Exception as error:  # ONNX Runtime's exceptions share no other base class
            raise EngineError(f"{self.path}: ONNX Runtime {ort.__version__} failed: {_first_line(error)}") from None


_open_sessions: "weakref.WeakSet[OnnxSession]" = weakref.WeakSet()


def _forget_sessions() -> None:
    for session in list(_open_sessions):
        session.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_sessions)


def native_settings(options: SessionOptions) -> Any:
    """The same in ONNX Runtime's own terms."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.log_severity_level = _FATAL
    spinning = options.spinning and options.threads <= (cpu_quota() or affinity_cores())
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return settings


def _open(path: Path, options: SessionOptions) -> Any:
    try:
        return ort.InferenceSession(str(path), native_settings(options), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no other base class
        raise EngineError(f"{path}: {_explain(error)}") from None


def _explain(error: Exception) -> str:
    """Cause and cure of an exception while loading; ONNX Runtime's own words where there is nothing better."""
    text, runtime = _first_line(error), f"ONNX Runtime {ort.__version__}"
    cure = "update onnxruntime, or export it again with convert/export_onnx.py"
    opset, limit = re.search(r"Opset (\d+) is under", text), re.search(r"ai\.onnx is till opset (\d+)", text)
    if opset and limit:
        return f"made with opset {opset[1]}; {runtime} reads up to opset {limit[1]}: {cure}"
    if version := re.search(r"model IR version: (\d+), max supported IR version: (\d+)", text):
        return f"made with ONNX IR version {version[1]}; {runtime} reads up to {version[2]}: {cure}"
    if re.search(r"No Op registered|not a registered function", text):
        return f"needs an operator that {runtime} lacks; {cure} ({text})"
    if re.search("protobuf", text, re.IGNORECASE):
        return f"damaged, or not an ONNX file; copy or export it again ({text})"
    return f"{runtime} cannot open it; export it again with convert/export_onnx.py ({text})"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (/\S+:\d+ .*?\) (?=[A-Z]))?", "", lines[0])


def _read_spec(path: Path, session: Any) -> ModelSpec:
    metadata = session.get_modelmeta().custom_metadata_map
    if SPEC_KEY not in metadata:
        raise EngineError(f"{path}: not one of our models: no {SPEC_KEY} metadata; {_EXPORT}")
    try:
        return ModelSpec.from_json(metadata[SPEC_KEY])
    except SpecError as error:
        raise EngineError(f"{path}: {error}") from None


def _warn_of_saturation(path: Path, session: Any) -> None:
    history = session.get_modelmeta().custom_metadata_map.get(HISTORY_KEY, "")
    if re.search(r'"weight_bits": *8\b', history) and int8_saturates():
        logger.warning(
            "%s: its 8-bit weights saturate on this CPU (x86 without VNNI) and cost accuracy; "
            "build it with --reduce-range",
            path,
        )


def _check_graph(path: Path, session: Any, spec: ModelSpec) -> None:
    """Compares names, types and shapes; "N" and "W" stand for free dimensions."""
    wide = "W" if spec.input.canvas_step_px else spec.input.width_px
    canvas, steps = (spec.input.height_px, wide, 3), spec.network.max_length
    expected = {
        "images": ("tensor(uint8)", ("N", *canvas)),
        "valid_width": ("tensor(int32)", ("N",)),
        "tokens": ("tensor(int32)", ("N", steps)),
        "scores": ("tensor(float)", ("N", steps)),
    }
    nodes = [*session.get_inputs(), *session.get_outputs()]
    found = {node.name: (node.type, node.shape) for node in nodes}
    if set(found) - {STEP_LOGITS, COLUMNS} != set(expected):
        names = f"{', '.join(sorted(found))}, not {', '.join(sorted(expected))}"
        raise EngineError(f"{path}: its inputs and outputs are {names}; {_EXPORT}")
    for name, wanted in expected.items():
        if found[name][0] != wanted[0] or not _fits(found[name][1], wanted[1]):
            is_, needs = (f"{kind} {_text(shape)}" for kind, shape in (found[name], wanted))
            raise EngineError(f"{path}: {name} is {is_}, but its spec needs {needs}; {_EXPORT}")


def _fits(found: list[int | str | None], expected: tuple[int | str, ...]) -> bool:
    """A dimension that the graph leaves open may turn out right; the batch has to be open."""
    return len(found) == len(expected) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(found, expected, strict=True)
    )


def _text(shape: list[int | str | None] | tuple[int | str, ...]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
