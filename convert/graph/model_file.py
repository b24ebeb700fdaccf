"""What conversion produces: files that know their spec and history, written whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from robustscanner import __version__
from robustscanner.engine import file_sha256
from robustscanner.errors import EngineError
from robustscanner.output import OutputError, check_output, replacing
from robustscanner.spec import HISTORY_KEY, SPEC_KEY, ModelSpec, to_metadata


def prepare_output(output: Path, *, force: bool) -> None:
    """Makes the folder of a target and refuses early, before minutes of work; raises as `check_output` does."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output.parent}: cannot be made: {error.strerror}; choose another place") from None
    check_output(output, force=force)


def file_step(name: str, tool: str, source: Path) -> dict[str, Any]:
    """One line of an artefact's history: what was done with which input."""
    digest = file_sha256(source)
    return {"step": name, "tool": tool, "version": __version__, "input": source.name, "input_sha256": digest}


def with_metadata(
    model: onnx.ModelProto,
    spec: ModelSpec,
    history: Sequence[dict[str, Any]],
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> onnx.ModelProto:
    """The same model, knowing its spec and history, and the ranges that it was trained to be rounded within, if so."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, to_metadata(spec, history, ranges=ranges))
    return model


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """The entries of a model's metadata."""
    return {entry.key: entry.value for entry in model.metadata_props}


def load_model(path: Path) -> tuple[onnx.ModelProto, ModelSpec, list[dict[str, Any]]]:
    """An ONNX file of ours, its spec and history.

    Raises:
        EngineError: unreadable, or not of ours.
        SpecError: a spec that contradicts itself.
    """
    try:
        model = onnx.load(path)
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}") from None
    except Exception as error:  # protobuf's own exception class differs between its releases
        raise EngineError(f"{path}: not an ONNX file, or damaged ({str(error).splitlines()[0]})") from None
    entries = metadata_of(model)
    if SPEC_KEY not in entries:
        raise EngineError(f"{path}: holds no robustscanner.spec; make it with convert/export_onnx.py")
    try:
        history = json.loads(entries.get(HISTORY_KEY, "[]"))
    except ValueError:
        raise EngineError(f"{path}: its robustscanner.history is not JSON; export it again") from None
    return model, ModelSpec.from_json(entries[SPEC_KEY]), history


def save_model(model: onnx.ModelProto, output: Path, *, force: bool) -> None:
    """Writes a file complete or not at all; raises `OutputError` as `robustscanner.output.replacing` does."""
    with replacing(output, force=force) as temporary:
        temporary.write_bytes(model.SerializeToString())
