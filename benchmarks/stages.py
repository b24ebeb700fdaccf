"""Where one word's time goes: picture, canvas, encoder, decoding steps, text."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.reader import options_for
from benchmarks.workload import find_graph
from convert.graph.edit import captured
from convert.graph.step import memory_names
from robustscanner.charset import Charset
from robustscanner.engine import open_engine
from robustscanner.preprocess import decode_image, make_batch
from robustscanner.session import SessionOptions

if TYPE_CHECKING:
    from onnx import ModelProto

STAGES = ("decode picture", "preprocess", "encoder", "decoding steps", "text")

Run = Callable[[Mapping[str, Any]], Sequence[Any]]  # inputs by name to outputs


def break_down(
    paths: Sequence[Path], pictures: Sequence[bytes], options: SessionOptions, *, rounds: int
) -> dict[str, Any]:
    """Stages of every engine, one after the other in each round, JSON-ready.

    A graph for ONNX Runtime holds encoder and decoding. It is cut at the named tensors, and each part is timed on its
    own; caches and threads make their sum a little more or less than the whole. A TensorRT engine does both in one
    call: there the stage "engine" stands for encoder, steps and copies.
    """
    probes = {path.name: _Probe(path, options) for path in paths}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in probes}
    for number in range(rounds + 1):
        for name, probe in probes.items():
            found = probe.measure(pictures)
            rows[name] += found if number else []  # the first round warms up
    return {name: _medians(found) for name, found in rows.items()}


class _Probe:
    """One engine, taken apart."""

    def __init__(self, path: Path, options: SessionOptions) -> None:
        import onnx

        self._session = open_engine(path, options_for(path, options))
        self._charset = Charset(self._session.spec.charset)
        graph = find_graph(path)
        model = onnx.load(graph) if graph else None
        self._memory = memory_names(model.graph) if model else []
        self._parts = [open_part(part, options) for part in cut_apart(model)] if model else []

    def measure(self, pictures: Sequence[bytes]) -> list[dict[str, float]]:
        """Milliseconds of each stage for each word, and the steps it took.

        All words as a whole first, then the parts for all: in turns they would push each other out of the caches.
        """
        rows = [self._measure_word(picture) for picture in pictures]
        if not self._parts:
            return rows
        encode, decode = self._parts
        inputs = [make_batch([decode_image(picture)], self._session.spec.input) for picture in pictures]
        memories = []
        for row, (canvases, widths) in zip(rows, inputs, strict=True):
            row["encoder"], memory = _timed(encode, {"images": canvases, "valid_width": widths})
            memories.append(dict(zip(self._memory, memory, strict=True)) | {"valid_width": widths})
        for row, memory in zip(rows, memories, strict=True):
            row["decoding steps"], _ = _timed(decode, memory)
            del row["engine"]
        return rows

    def _measure_word(self, picture: bytes) -> dict[str, float]:
        marks = [time.perf_counter()]
        image = decode_image(picture)
        marks.append(time.perf_counter())
        canvases, widths = make_batch([image], self._session.spec.input)
        marks.append(time.perf_counter())
        tokens, scores = self._session.run(canvases, widths)
        marks.append(time.perf_counter())
        text, _ = self._charset.decode(tokens[0], scores[0])
        marks.append(time.perf_counter())
        picture_ms, canvas_ms, run_ms, text_ms = 1e3 * np.diff(marks)
        row = {"decode picture": picture_ms, "preprocess": canvas_ms, "engine": run_ms, "text": text_ms}
        return row | {"steps": len(text) + 1.0}


def cut_apart(graph: "ModelProto") -> "tuple[ModelProto, ModelProto]":
    """Encoder, up to the named tensors, and the decoding after them."""
    from onnx.utils import Extractor

    memory = memory_names(graph.graph)
    encoder = Extractor(graph).extract_model(["images", "valid_width"], memory)
    decoder = Extractor(graph).extract_model([*memory, "valid_width"], ["tokens", "scores"])
    held = {tensor.name for tensor in decoder.graph.initializer}
    # The extractor does not look into the loop.
    read = set().union(*map(captured, decoder.graph.node)) - held
    decoder.graph.initializer.extend(tensor for tensor in graph.graph.initializer if tensor.name in read)
    return encoder, decoder


def open_part(part: "ModelProto", options: SessionOptions) -> Run:
    """Runs a part of a graph with the settings the session itself uses."""
    import onnxruntime  # type: ignore[import-untyped]

    from robustscanner.onnx_session import native_settings

    session = onnxruntime.InferenceSession(
        part.SerializeToString(), native_settings(options), providers=["CPUExecutionProvider"]
    )
    return lambda inputs: session.run(None, dict(inputs))  # type: ignore[no-any-return]


def _timed(run: Run, inputs: Mapping[str, Any]) -> tuple[float, Sequence[Any]]:
    """Milliseconds, and what came out."""
    begin = time.perf_counter()
    outputs = run(inputs)
    return 1e3 * (time.perf_counter() - begin), outputs


def _medians(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = [name for name in (*STAGES, "engine") if name in rows[0]]
    medians = {name: round(float(np.median([row[name] for row in rows])), 4) for name in names}
    return {"milliseconds": medians, "steps": round(float(np.mean([row["steps"] for row in rows])), 2)}
