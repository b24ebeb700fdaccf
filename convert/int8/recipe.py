"""Which layers compute in 8 bits and how their ranges are chosen: said here before it is done, and by whom it was."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from onnx import ModelProto

from robustscanner.engine import file_sha256
from robustscanner.errors import EngineError
from robustscanner.spec import ModelSpec, trained_ranges

from ..graph.model_file import metadata_of
from .calibration import CalibrationSet, Collect, Ranges

# These layers make the keys of both branches. Attention is not scaled, so softmax magnifies what keys lose: in 8 bits,
# the position branch's glimpses drop from 36 to 13 dB above the noise. The edge model would gain 0.8 of 4.1 ms.
KEY_LAYERS = ("/encoder/*", "/position/*")
# The `small` network also gates whole channels by one number each, which 8 bits make coarse; its depthwise layers gain
# little; and its first layers see the picture at full size, where ONNX Runtime pools 8 bits more slowly than it
# computes floats. Its blocks end in layers that need weights of all 8 bits.
SMALL_LAYERS = ("/encoder/*", "/backbone/stem/*", "*/squeeze/*", "*/across*", "*/along/*", "/backbone/spread/*")
FINE_LAYERS = ("*/narrow/*",)
AUTO = "auto"  # a method, or a pattern: as suits the network

_NEAREST = 4  # names that a message suggests


@dataclass(frozen=True)
class Recipe:
    """How to quantise a graph."""

    method: str = "max"  # of choosing activation ranges, one of arguments.METHODS
    exclude: tuple[str, ...] = KEY_LAYERS  # patterns of names of layers that stay FP32
    # 7 bits for weights: x86 without VNNI adds products in 16 bits. None: as suits the network and the CPU.
    reduce_range: bool | None = False

    def settled(self, spec: ModelSpec, spared: tuple[str, ...], *, narrow: bool) -> "Recipe":
        """The same with what was left open filled in.

        `small` has rare large values after its depthwise layers. Of 715 held-out crops, ranges that hold them all lose
        8 and win 2, those that squared errors choose lose 4 and win 3. With weights of 7 bits they lose 11 and win 3;
        where the layers that close its blocks stay FP32, 1 and 2. With `edge` that was taught by it, squared errors and
        entropy are equal on 2,765 held-out and rendered words, 79.5 % like FP32; of `calib_data`, the former lose 2 of
        246 words, the latter none.

        Args:
            spec: of the model.
            spared: layers that a backend leaves in FP32.
            narrow: whether it likes weights of 7 bits.
        """
        is_small = spec.network.backbone == "small"
        usual_method = ("mse" if is_small else "entropy") if spec.network.ctc_weight else "max"
        method = usual_method if self.method == AUTO else self.method
        reduce_range = narrow if self.reduce_range is None else self.reduce_range
        usual = spared
        if is_small:
            usual += SMALL_LAYERS + (FINE_LAYERS if reduce_range else ())
        exclude = usual if self.exclude == (AUTO,) else self.exclude
        return replace(self, method=method, exclude=exclude, reduce_range=reduce_range)

    @property
    def weight_bits(self) -> int:
        """7 or 8."""
        return 7 if self.reduce_range else 8

    def sparing(self, layers: Iterable[str]) -> "Recipe":
        """The same, with these layers in FP32 as well."""
        return replace(self, exclude=(*self.exclude, *map(exact_pattern, layers)))

    def choose(self, layers: Sequence[str]) -> tuple[str, ...]:
        """Those of the layers that can be quantised which shall be.

        Raises:
            EngineError: a pattern that matches none of them, or none is left.
        """
        for pattern in self.exclude:
            if not any(fnmatchcase(layer, pattern) for layer in layers):
                nearest = ", ".join(get_close_matches(pattern, layers, _NEAREST, cutoff=0))
                raise EngineError(
                    f"--exclude {pattern!r} matches none of the {len(layers)} layers that can be quantised; "
                    f"the nearest are {nearest}"
                )
        chosen = tuple(layer for layer in layers if not any(fnmatchcase(layer, p) for p in self.exclude))
        if not chosen:
            raise EngineError("no layer is left to quantise; exclude fewer")
        return chosen

    def find_ranges(
        self,
        model: ModelProto,
        tensors: Sequence[str],
        calibration: CalibrationSet,
        collect: Collect,
        *,
        pooled: Mapping[str, str] | None = None,
    ) -> Ranges:
        """Where the values of some tensors lie, measured or learnt; `pooled` as in `Placement`.

        Raises:
            EngineError: method "qat" for a model that was not trained so.
        """
        if not tensors:
            return Ranges(self.method, 0, {})
        if self.method != "qat":
            return collect(model, tensors, calibration.batches(), method=self.method, images=len(calibration.crops))
        known, pooled = trained_ranges(metadata_of(model)), pooled or {}
        if missing := [name for name in tensors if pooled.get(name, name) not in known]:
            cure = "train it with training/configs/qat.yaml, or take --calib-method max"
            raise EngineError(f"--calib-method qat: the model holds no range of {missing[0]}; {cure}")
        return Ranges("qat", 0, {name: known[pooled.get(name, name)] for name in tensors})


@dataclass(frozen=True)
class Quantized:
    """A quantised graph and how it came about."""

    model: ModelProto
    convolutions: tuple[str, ...]  # in 8 bits, in the order of the graph
    excluded: tuple[str, ...]  # the other convolutions
    also: tuple[str, ...]  # other layers in 8 bits
    details: dict[str, Any]  # for the history

    @classmethod
    def of(
        cls,
        model: ModelProto,
        layers: Sequence[str],
        recipe: Recipe,
        *,
        exported: ModelProto,
        calibration: CalibrationSet,
        ranges: Ranges,
    ) -> "Quantized":
        """From a graph with these layers in 8 bits; what is a convolution and what is not, the exported model says."""
        convolutions = [node.name for node in exported.graph.node if node.op_type == "Conv"]
        excluded = tuple(name for name in convolutions if name not in layers)
        also = tuple(name for name in layers if name not in convolutions)
        details = {
            "method": ranges.method,
            "images": ranges.images,
            **_data_digests(calibration.folder),
            "excluded": list(excluded),
            "weight_bits": recipe.weight_bits,
        }
        chosen = tuple(name for name in convolutions if name in layers)
        return cls(model, chosen, excluded, also, details | ({"also_int8": list(also)} if also else {}))

    @property
    def layers(self) -> tuple[str, ...]:
        """All that are in 8 bits."""
        return (*self.convolutions, *self.also)

    def __str__(self) -> str:
        done, all_ = len(self.convolutions), len(self.convolutions) + len(self.excluded)
        method, images = self.details["method"], self.details["images"]
        origin = "learnt in training" if method == "qat" else f"by {method} from {images} crops"
        weights = "; 7-bit weights, right on every CPU" if self.details["weight_bits"] < 8 else ""
        return f"{done} of {all_} convolutions, ranges {origin}{weights}"


def exact_pattern(name: str) -> str:
    """What `--exclude` takes, made so that only this name fits."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _data_digests(folder: Path) -> dict[str, str]:
    tables = {"labels_sha256": folder / "labels.tsv", "manifest_sha256": folder / "manifest.tsv"}
    return {key: file_sha256(path) for key, path in tables.items() if path.is_file()}
