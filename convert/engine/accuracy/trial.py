"""Tries out which layers may compute in 8 bits: reads labelled crops with some of them quantised."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from robustscanner.charset import Charset
from robustscanner.scoring import AUTO, Scorer
from robustscanner.session import STEP_LOGITS

from ...graph.edit import copy_model
from ...graph.session import open_on_cpu
from ...graph.step import collect_logits
from ...int8.calibration import CalibrationSet, Histogram, Inputs, Ranges, collect_histograms
from ...int8.recipe import Quantized, Recipe
from ..backend import Quantise
from ..model_source import Source

Logits = npt.NDArray[np.float32]  # (T, classes) of one word, the end token's included


@dataclass(frozen=True)
class Trial:
    """How the crops were read with some layers in 8 bits."""

    rate: float  # words that are right, 0…1
    agreement: float  # words that read as in FP32, right or wrong, 0…1
    divergence: float  # of the characters' probabilities from FP32's: Kullback-Leibler, nats, mean of all characters

    def drop_points(self, base: "Trial") -> float:
        """Percentage points of words lost; negative when some were won."""
        return 100 * (base.rate - self.rate)


@dataclass(frozen=True)
class _Word:
    text: str
    logits: Logits


class Trials:
    """One float model, the crops its ranges come from, and the crops it is tried on.

    Tries the graph that a backend's `quantise` gives, and always on the CPU. What stays unquantised is computed in
    float32, also where a TensorRT engine has float16. Ranges are measured once.
    """

    def __init__(
        self,
        quantise: Quantise,
        source: Source,
        calibration: CalibrationSet,
        crops: CalibrationSet,
        recipe: Recipe = Recipe(exclude=()),
        protocol: str = AUTO,
    ) -> None:
        self._quantise, self._source, self._recipe = quantise, source, recipe
        self._calibration, self._crops = calibration, crops
        self._charset = Charset(source.spec.charset)
        self._protocol = protocol
        self.scorer = Scorer.of(source.spec, [crop.label for crop in crops.crops], protocol)
        self.words = len(crops.crops)
        self._histograms: dict[str, Histogram] = {}

    def on(self, crops: CalibrationSet) -> "Trials":
        """The same layers and ranges, tried on other crops."""
        other = Trials(self._quantise, self._source, self._calibration, crops, self._recipe, self._protocol)
        other._histograms = self._histograms
        return other

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Those that the recipe puts into 8 bits."""
        return self._quantised(self._recipe).layers

    @cached_property
    def base(self) -> Trial:
        """The float model as it is."""
        return self._judge(self._float_words)

    def run(self, float_layers: Collection[str], *, method: str | None = None) -> Trial:
        """All layers in 8 bits but those named, which must be some of `layers`."""
        if not set(self.layers) - set(float_layers):
            return self.base
        recipe = self._recipe.sparing(float_layers)
        return self._judge(self._read(self._quantised(replace(recipe, method=method or recipe.method)).model))

    @cached_property
    def _float_words(self) -> list[_Word]:
        return self._read(self._source.model)

    def _quantised(self, recipe: Recipe) -> Quantized:
        return self._quantise(self._source, self._calibration, recipe, collect=self._collect)

    def _collect(
        self, model: ModelProto, tensors: Sequence[str], batches: Iterable[Inputs], *, method: str, images: int
    ) -> Ranges:
        if missing := [name for name in tensors if name not in self._histograms]:
            self._histograms |= collect_histograms(model, missing, batches, images=images)
        return Ranges(method, images, {name: self._histograms[name].limits(method) for name in tensors})

    def _read(self, model: ModelProto) -> list[_Word]:
        session = open_on_cpu(with_logits(model))
        words: list[_Word] = []
        for batch in self._crops.batches():
            tokens, scores, logits = session.run(["tokens", "scores", STEP_LOGITS], dict(batch))
            words += self._words(tokens, scores, logits)
        return words

    def _words(self, tokens: Any, scores: Any, logits: Any) -> Iterator[_Word]:
        for row in range(len(tokens)):
            text, _ = self._charset.decode(tokens[row], scores[row])
            yield _Word(text, logits[: len(text) + 1, row])

    def _judge(self, words: Sequence[_Word]) -> Trial:
        pairs = list(zip(self._float_words, words, strict=True))
        score = self.scorer.score([word.text for word in words])
        kept = [_divergences(before.logits, after.logits) for before, after in pairs]
        alike = sum(before.text == after.text for before, after in pairs)
        return Trial(score.rate, alike / len(pairs), float(np.concatenate(kept).mean()))


def with_logits(model: ModelProto) -> ModelProto:
    """A copy of the whole graph that also gives what each decoding step computed."""
    copy = copy_model(model)
    collect_logits(copy.graph)
    if not any(value.name == STEP_LOGITS for value in copy.graph.output):  # of an older export
        copy.graph.output.append(helper.make_tensor_value_info(STEP_LOGITS, TensorProto.FLOAT, None))
    return copy


def _divergences(before: Logits, after: Logits) -> npt.NDArray[np.float64]:
    """Of each character up to and including the first that differs: after it, the two answer different questions."""
    length = min(len(before), len(after))
    differs = before[:length].argmax(1) != after[:length].argmax(1)
    length = int(differs.argmax()) + 1 if differs.any() else length
    p, q = _log_softmax(before[:length]), _log_softmax(after[:length])
    return np.asarray((np.exp(p) * (p - q)).sum(1))  # (T,)


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
