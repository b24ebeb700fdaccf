"""Reads with a graph that the same Triton serves, by its backend for ONNX Runtime."""

from typing import Any

from robustscanner.errors import EngineError
from robustscanner.session import Allowed, Images, Scores, Tokens, Widths, check_result
from robustscanner.spec import ModelSpec


class GraphSession:
    """Another model of the server, asked from within it; see `session.Session`."""

    can_constrain = False

    def __init__(self, name: str, spec: ModelSpec, max_batch: int) -> None:
        self.spec = spec
        self.max_batch: int | None = max_batch
        self._name = name

    def run(self, images: Images, valid_width: Widths, allowed: Allowed | None = None) -> tuple[Tokens, Scores]:
        """See `session.Session.run`."""
        import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # Triton brings it

        assert allowed is None  # see `can_constrain`
        tensors = [triton.Tensor("images", images), triton.Tensor("valid_width", valid_width[:, None])]  # (N, 1)
        answer = triton.InferenceRequest(
            model_name=self._name, requested_output_names=["tokens", "scores"], inputs=tensors
        ).exec()
        if answer.has_error():
            raise EngineError(f"{self._name}: {answer.error().message()}; see Triton's log")
        tokens, scores = (_array(triton, answer, name) for name in ("tokens", "scores"))
        check_result(self.spec, len(images), tokens, scores)
        return tokens, scores

    def close(self) -> None:
        """Nothing: the graph is the server's."""


def _array(triton: Any, answer: Any, name: str) -> Any:
    return triton.get_output_tensor_by_name(answer, name).as_numpy()
