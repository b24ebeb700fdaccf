"""Finds out between which values the tensors of an encoder lie, by running labelled crops through it."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx.utils import Extractor
from tqdm import tqdm  # type: ignore[import-untyped]

from robustscanner.errors import ImageError
from robustscanner.labels import DataError, LabelledCrop, read_labels
from robustscanner.preprocess import Image, draw_canvas, load_image, same_width
from robustscanner.spec import InputSpec

from ..graph.session import open_on_cpu

DEFAULT_IMAGES = 512  # beyond it the ranges hardly move

_BATCH = 4  # pictures; the paper's network hands back 60 MB of activations for each
_BINS = 2048  # of a histogram, on either side of zero; even, so that it can be widened
_CLIPPED_SHARE = 1e-5  # of the values, by method "percentile", half of it at either end
_TRACE = 1e-4  # counts that stand for none, where clipped values pile up on an empty bin
_STRIDE = 8  # bins between two candidates of methods "entropy" and "mse"

Item = TypeVar("Item")
Inputs = Mapping[str, npt.NDArray[Any]]  # of the graph, for one run


@dataclass(frozen=True)
class CalibrationSet:
    """Labelled crops that can be read, as the graph gets them."""

    folder: Path
    crops: tuple[LabelledCrop, ...]
    canvases: Image  # (N, height, width, 3), each of the full width
    widths: npt.NDArray[np.int32]  # (N,)
    unreadable: tuple[str, ...]  # what is wrong with each crop that was left out
    spec: InputSpec = InputSpec()

    def batches(self) -> Iterator[Inputs]:
        """Inputs for run after run, in the order of the crops; canvases of a run have one width."""
        for of_this, wide in same_width(self.widths.tolist(), self.spec):
            for start in range(0, len(of_this), _BATCH):
                rows = of_this[start : start + _BATCH]
                images = np.ascontiguousarray(self.canvases[rows, :, :wide])
                yield {"images": images, "valid_width": self.widths[rows]}

    def thinned(self, images: int) -> "CalibrationSet":
        """At most `images` of its crops, spread evenly over the folder."""
        rows = _draw(range(len(self.crops)), images)
        crops = tuple(self.crops[row] for row in rows)
        return replace(self, crops=crops, canvases=self.canvases[rows], widths=self.widths[rows])


@dataclass(frozen=True)
class Ranges:
    """Where the values of some tensors lie."""

    method: str  # one of arguments.METHODS
    images: int  # pictures they come from
    limits: dict[str, tuple[float, float]]  # tensor name -> lowest and highest value, zero within


def load_calibration(folder: Path, spec: InputSpec, *, images: int = DEFAULT_IMAGES) -> CalibrationSet:
    """Draws crops evenly from a folder's `labels.tsv` and puts them on canvases just as serving does.

    Raises:
        DataError: no labelled crops, or none that can be read.
    """
    crops = _draw(read_labels(folder), images)
    canvases = np.empty((len(crops), spec.height_px, spec.width_px, 3), np.uint8)
    readable: list[LabelledCrop] = []
    widths: list[int] = []
    unreadable: list[str] = []
    for crop in crops:
        try:
            widths.append(draw_canvas(load_image(crop.path), canvases[len(widths)], spec))
            readable.append(crop)
        except ImageError as error:
            unreadable.append(str(error))
    if not readable:
        raise DataError(f"{folder}: none of its {len(crops)} pictures can be read; the first: {unreadable[0]}")
    # In the order of their canvases' widths, so that batches come in the order of the crops.
    rows = np.argsort([spec.canvas_width(width) for width in widths], kind="stable")
    kept = tuple(readable[row] for row in rows)
    return CalibrationSet(folder, kept, canvases[rows], np.array(widths, np.int32)[rows], tuple(unreadable), spec)


def collect_ranges(
    model: onnx.ModelProto, tensors: Sequence[str], batches: Iterable[Inputs], *, method: str, images: int
) -> Ranges:
    """Runs the part of the graph that computes the tensors, and nothing after it.

    Args:
        model: a whole graph.
        tensors: names of float tensors in it.
        batches: inputs of the graph, any number of them.
        method: `max` keeps every value; `percentile`, `entropy` and `mse` clip rare large ones for finer steps.
        images: pictures in all batches together, for the progress bar.
    """
    histograms = collect_histograms(model, tensors, batches, images=images)
    return Ranges(method, images, {name: histogram.limits(method) for name, histogram in histograms.items()})


def collect_histograms(
    model: onnx.ModelProto, tensors: Sequence[str], batches: Iterable[Inputs], *, images: int
) -> dict[str, "Histogram"]:
    """What `collect_ranges` chooses from, for whoever compares methods; the same arguments."""
    histograms = {name: Histogram() for name in tensors}
    part = Extractor(model).extract_model(["images", "valid_width"], list(tensors))
    session = open_on_cpu(part)
    with tqdm(total=images, unit="image", desc="calibrating", leave=False, disable=None, file=sys.stderr) as bar:
        for batch in batches:
            for name, values in zip(tensors, session.run(list(tensors), dict(batch)), strict=True):
                histograms[name].add(values)
            bar.update(len(batch["images"]))
    return histograms


class Collect(Protocol):
    """What `collect_ranges` is."""

    def __call__(
        self, model: onnx.ModelProto, tensors: Sequence[str], batches: Iterable[Inputs], *, method: str, images: int
    ) -> Ranges: ...


@dataclass
class Histogram:
    """Counts of a tensor's values around zero; its reach doubles when larger ones come, so one pass is enough.

    ONNX Runtime's own calibrators keep all activations of a pass, print, and by default leave `entropy` hardly a
    choice: 128 bins over both signs, to be quantised to 128.
    """

    reach: float = 0.0  # the bins cover -reach … reach
    lowest: float = 0.0
    highest: float = 0.0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * _BINS, np.int64))

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Counts more values."""
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))
        self._widen(max(-self.lowest, self.highest))
        if self.reach:
            bins = (values.ravel() * np.float32(_BINS / self.reach) + np.float32(_BINS)).astype(np.int32)
            self.counts += np.bincount(np.minimum(bins, 2 * _BINS - 1), minlength=2 * _BINS)

    def limits(self, method: str) -> tuple[float, float]:
        """Lowest and highest value worth keeping."""
        if method == "max" or not self.reach:
            return self.lowest, self.highest
        low, high = self._percentile() if method == "percentile" else self._symmetric(_CRITERIA[method])
        return max(self.lowest, low), min(self.highest, high)

    def _widen(self, reach: float) -> None:
        self.reach = self.reach or reach
        while self.reach < reach:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(pairs, _BINS // 2)
            self.reach *= 2

    def _percentile(self) -> tuple[float, float]:
        below = np.cumsum(self.counts)
        cut = below[-1] * _CLIPPED_SHARE / 2
        first = np.searchsorted(below, cut, "right")
        last = np.searchsorted(below, below[-1] - cut)
        width = self.reach / _BINS
        return min(0.0, (first - _BINS) * width), max(0.0, (last + 1 - _BINS) * width)

    def _symmetric(self, choose: Callable[[npt.NDArray[np.int64], int], int]) -> tuple[float, float]:
        """One limit for both signs, which together have 256 levels; a tensor after a ReLU has them all on one side."""
        counts = self.counts[_BINS:] + self.counts[_BINS - 1 :: -1]
        limit = choose(counts, 256 if self.lowest == 0 else 128) * self.reach / _BINS
        return -limit, limit


def _least_divergent(counts: npt.NDArray[np.int64], levels: int) -> int:
    """How many bins to keep so that quantising them tells least from the original, by Kullback-Leibler divergence.

    Source: S. Migacz, 8-bit Inference with TensorRT, GTC 2017.
    """
    weights = counts.astype(np.float64)
    weights[0] = weights[1]  # zeros stay exact whatever the limit, and after a ReLU they would drown all else
    candidates: list[int] = [*range(levels, len(weights), _STRIDE), len(weights)]
    return min(candidates, key=lambda kept: _divergence(weights, kept, levels))


def _divergence(counts: npt.NDArray[np.float64], kept: int, levels: int) -> float:
    reference, inner = counts[:kept].copy(), counts[:kept]
    reference[-1] += counts[kept:].sum()
    starts = np.arange(levels) * kept // levels
    used = inner > 0
    total, shares = np.add.reduceat(inner, starts), np.add.reduceat(used.astype(np.float64), starts)
    level = np.searchsorted(starts, np.arange(kept), "right") - 1
    quantised = np.where(used, (total / np.maximum(shares, 1))[level], 0)
    counted = reference > 0
    p = reference[counted] / reference.sum()
    q = np.maximum(quantised[counted], _TRACE) / max(quantised.sum(), _TRACE)
    return float((p * np.log(p / q)).sum())


def _least_square(counts: npt.NDArray[np.int64], levels: int) -> int:
    """How many bins to keep for the least squared error: rounding within them costs step² / 12, clipping its square."""
    weights = counts.astype(np.float64)
    weights[0] = 0  # zeros stay exact
    centres = np.arange(len(weights)) + 0.5
    candidates: list[int] = [*range(levels // 2, len(weights), _STRIDE), len(weights)]

    def error(kept: int) -> float:
        rounding = (kept / levels) ** 2 / 12 * weights[:kept].sum()
        return float(rounding + (weights[kept:] * (centres[kept:] - kept) ** 2).sum())

    return min(candidates, key=error)


_CRITERIA = {"entropy": _least_divergent, "mse": _least_square}


def _draw(crops: Sequence[Item], count: int) -> list[Item]:
    """Evenly, so that a sorted folder is not seen from one end only, and the same each time."""
    count = min(count, len(crops))
    return [crops[index * len(crops) // count] for index in range(count)]
