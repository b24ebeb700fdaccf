"""The model that Triton's Python backend runs: bytes of pictures in, texts and scores out.

Triton gathers requests into batches; this reads those of a batch together. `convert/triton_repository.py` writes the
folder around it.
"""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from robustscanner.errors import ImageError
from robustscanner.recognizer import Reading, Recognizer
from robustscanner.serving.triton_graph import GraphSession
from robustscanner.session import GpuOptions, SessionOptions
from robustscanner.spec import ModelSpec


class TritonPythonModel:
    """What the Python backend calls, by its own names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the engine beside model.py, on the instance's GPU; or a graph that the server has as another model."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        folder, batch = Path(args["model_repository"], args["model_version"]), config["max_batch_size"]
        if "graph" in parameters:
            spec = ModelSpec.from_json((folder / "spec.json").read_text(encoding="utf-8"))
            self._recognizer = Recognizer.over(GraphSession(parameters["graph"], spec, batch), batch_size=batch)
            return
        gpu = GpuOptions(device=int(args["model_instance_device_id"]))
        options = SessionOptions(threads=int(parameters["threads"]), spinning=False, gpu=gpu)
        self._recognizer = Recognizer(folder / parameters["engine"], batch_size=batch, options=options)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """An answer for each request; one with a picture that cannot be read is an error, and stops no other."""
        import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # Triton brings it

        pictures = [triton.get_input_tensor_by_name(request, "image").as_numpy().ravel() for request in requests]
        results = (
            result for _, result in self._recognizer.read_each([bytes(one) for some in pictures for one in some])
        )
        return [_answer(triton, list(islice(results, len(some)))) for some in pictures]

    def finalize(self) -> None:
        """Frees the engine."""
        self._recognizer.close()


def _answer(triton: Any, results: Sequence[Reading | ImageError]) -> Any:
    readings = [result for result in results if isinstance(result, Reading)]
    for number, result in enumerate(results):
        if isinstance(result, ImageError):
            error = triton.TritonError(f"picture {number}: {result}", triton.TritonError.INVALID_ARG)
            return triton.InferenceResponse([], error)
    texts = np.array([[reading.text.encode()] for reading in readings], np.object_)
    scores = np.array([[reading.score] for reading in readings], np.float32)
    return triton.InferenceResponse([triton.Tensor("text", texts), triton.Tensor("score", scores)])
