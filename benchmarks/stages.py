"""Where one word's time goes: picture, canvas, encoder, decoding steps, text."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workload import find_graph
from robustscanner.charset import Charset
from robustscanner.engine import open_engine
from robustscanner.preprocess import decode_image, make_batch
from robustscanner.session import SessionOptions

STAGES = ("decode picture", "preprocess", "encoder", "decoding steps", "text")
MEMORY = ("keys", "values", "mask", "position")  # the graph's named tensors between encoder and decoder


def break_down(
    paths: Sequence[Path], pictures: Sequence[bytes], options: SessionOptions, *, rounds: int
) -> dict[str, Any]:
    """Stages of every engine, one after the other in each round, JSON-ready.

    A graph for ONNX Runtime holds encoder and decoding in one. Its encoder is timed on its own, cut out at the named
    tensors, and the decoding steps are what the whole takes longer. TensorRT's engines keep both behind one call:
    there the stage "engine" stands for encoder, steps and copies.
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
        self._session = open_engine(path, options)
        self._charset = Charset(self._session.spec.charset)
        graph = find_graph(path)
        self._encode = open_encoder(graph, options) if graph else None

    def measure(self, pictures: Sequence[bytes]) -> list[dict[str, float]]:
        """Milliseconds of each stage for each word, and the steps it took.

        All words as a whole first, then the encoder for all: in turns they would push each other out of the caches.
        """
        rows = [self._measure_word(picture) for picture in pictures]
        if self._encode is None:
            return [row | {"engine": row.pop("run")} for row in rows]
        for row, picture in zip(rows, pictures, strict=True):
            canvases, widths = make_batch([decode_image(picture)], self._session.spec.input)
            begin = time.perf_counter()
            self._encode({"images": canvases, "valid_width": widths})
            row["encoder"] = 1e3 * (time.perf_counter() - begin)
            row["decoding steps"] = max(0.0, row.pop("run") - row["encoder"])
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
        row = {"decode picture": picture_ms, "preprocess": canvas_ms, "run": run_ms, "text": text_ms}
        return row | {"steps": len(text) + 1.0}


def open_encoder(graph: Path, options: SessionOptions) -> Callable[[Mapping[str, Any]], object]:
    """Runs a graph only up to the named tensors, with the settings the session itself uses."""
    import onnx
    import onnxruntime  # type: ignore[import-untyped]
    from onnx.utils import Extractor

    part = Extractor(onnx.load(graph)).extract_model(["images", "valid_width"], list(MEMORY))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = options.threads, 1
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "encoder.onnx"
        onnx.save(part, file)
        session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))


def _medians(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = [name for name in (*STAGES, "engine") if name in rows[0]]
    medians = {name: round(float(np.median([row[name] for row in rows])), 4) for name in names}
    return {"milliseconds": medians, "steps": round(float(np.mean([row["steps"] for row in rows])), 2)}
