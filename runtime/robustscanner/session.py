"""What every inference session can do, whichever library runs it."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from robustscanner.cpu import available_cores
from robustscanner.errors import EngineError
from robustscanner.spec import ModelSpec

Images = npt.NDArray[np.uint8]  # (N, height, width, 3) RGB
Widths = npt.NDArray[np.int32]  # (N,) pixels of each canvas that hold the word
Tokens = npt.NDArray[np.int32]  # (N, T)
Scores = npt.NDArray[np.float32]  # (N, T) probabilities of the tokens
Allowed = npt.NDArray[np.float32]  # (T, classes): 0 for what a step may say, a large negative number for all else

Logits = npt.NDArray[np.float32]  # (steps that ran, classes)
Probabilities = npt.NDArray[np.float64]
Columns = npt.NDArray[np.float32]  # (U, classes): what CTC sees in each column, and a row that says that the word ends

# Outputs of the whole graph that only letters need: logits of every step, and what CTC sees. Older exports lack them.
STEP_LOGITS, COLUMNS = "step_logits", "ctc_following"

MAX_THREADS = 1024
_AGAIN = "make it again from its checkpoint"


@dataclass(frozen=True)
class GpuOptions:
    """How to run a TensorRT engine; None: chosen by a short warm-up when it is opened."""

    device: int = 0  # CUDA's number of the GPU
    buckets: tuple[int, ...] | None = None  # batch sizes to prepare, ascending; None: the powers of two it can take
    prepared: tuple[int, ...] | None = None  # batch sizes to make ready when opening; None: smallest and largest
    steps_per_launch: int | None = None  # decoding steps queued at once; divides the model's max_length
    lookahead: int | None = None  # 1: queue the next steps before knowing whether they are needed; 0: ask first
    cuda_graphs: bool = True  # replay recorded launches, where cuda.bindings is installed
    decoder: str | None = None  # "kernel" or "steps", without any; None: kernels the engine has, where they run here
    host_code: bool = False  # let a version-compatible plan run the code it carries: only of plans that you trust

    def __post_init__(self) -> None:
        if self.device < 0:
            raise EngineError(f"device is {self.device}; give the number of a GPU, from 0")
        if self.buckets is not None and (
            not self.buckets or self.buckets[0] < 1 or list(self.buckets) != sorted(set(self.buckets))
        ):
            raise EngineError(f"buckets are {self.buckets}; give ascending batch sizes, from 1")
        if self.prepared is not None and (not self.prepared or min(self.prepared) < 1):
            raise EngineError(f"prepared is {self.prepared}; give batch sizes, from 1")
        if self.steps_per_launch is not None and self.steps_per_launch < 1:
            raise EngineError(f"steps_per_launch is {self.steps_per_launch}; give a number from 1")
        if self.decoder not in (None, "kernel", "steps"):
            raise EngineError(f"decoder is {self.decoder!r}; give 'kernel' or 'steps'")
        if self.lookahead not in (None, 0, 1):
            raise EngineError(f"lookahead is {self.lookahead}; give 0 or 1")


@dataclass(frozen=True)
class SessionOptions:
    """How to run an engine, as opposed to what it is."""

    threads: int = field(default_factory=available_cores)  # that share one operator; of the CPU only
    # Idle threads wait busily, for the sake of one word's latency; never where that eats a CPU limit below `threads`.
    spinning: bool = True
    gpu: GpuOptions = GpuOptions()  # of TensorRT engines only

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise EngineError(f"threads is {self.threads}; give a number from 1 to {MAX_THREADS}")


@dataclass(frozen=True)
class Trace:
    """What a run over one picture came by."""

    # Of each class at each step, whatever was allowed; 0 where an engine tells only those of the likeliest.
    chances: Probabilities
    columns: Columns | None  # None where CTC has no say


def softmax(logits: Logits) -> Probabilities:
    """Of rows."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


@dataclass(frozen=True)
class HostFacts:
    """What a TensorRT engine has to fit on this machine."""

    version: str  # of the library, e.g. "10.3.0"
    compute_capability: str  # of the GPU, e.g. "sm_87"
    name: str  # of the GPU


class Session(Protocol):
    """An opened engine. Whoever opened it closes it."""

    @property
    def spec(self) -> ModelSpec:
        """The model inside."""

    @property
    def max_batch(self) -> int | None:
        """The most pictures of one run; None when there is no limit."""

    @property
    def can_constrain(self) -> bool:
        """Whether `run` takes `allowed`."""

    def run(self, images: Images, valid_width: Widths, allowed: Allowed | None = None) -> tuple[Tokens, Scores]:
        """Reads canvases.

        Args:
            images: uint8 [N, height, width, 3], RGB.
            valid_width: int32 [N].
            allowed: float32 [T, classes], what each step of all words may say; everything when left out.

        Returns:
            Tokens int32 [N, T] and their probabilities float32 [N, T], among all tokens and not only the allowed ones;
            after a row's end token, pad and 1.

        Raises:
            EngineError: the run failed, or the result is no probability.
        """

    def close(self) -> None:
        """Frees what the session holds; further calls are harmless."""


def check_result(spec: ModelSpec, count: int, tokens: Tokens, scores: Scores) -> None:
    """Checks what came out of a run of `count` pictures against the model's spec.

    Raises:
        EngineError: a wrong shape, scores that are not finite, or ids that no token has.
    """
    shape = (count, spec.network.max_length)
    if tokens.shape != shape or scores.shape != shape:
        raise EngineError(f"gave {tokens.shape}, not {shape}; {_AGAIN}")
    if not np.isfinite(scores).all():
        raise EngineError("scores are not finite; its weights or scales are broken, build it again")
    if count and not 0 <= tokens.min() <= tokens.max() < len(spec.charset.tokens):
        raise EngineError(f"emits ids outside its charset; {_AGAIN}")
