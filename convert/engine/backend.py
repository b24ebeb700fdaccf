"""What a backend is: whatever turns a float model into an engine of one kind. `cpu/` and `trt/` are two."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from robustscanner.spec import ModelSpec

from ..int8.calibration import CalibrationSet, Collect
from ..int8.recipe import Quantized, Recipe
from .model_source import Source
from .product import Product


@dataclass(frozen=True)
class Preview:
    """What would be built."""

    title: str  # of the library, for messages
    summary: Sequence[tuple[str, str]]  # (what, text) lines
    details: Sequence[str]  # lines for --verbose


class Quantise(Protocol):
    """Puts layers of a model into 8 bits. What is tried and what is built both come from here."""

    def __call__(
        self, source: Source, calibration: CalibrationSet, recipe: Recipe, *, collect: Collect = ...
    ) -> Quantized:
        """A whole graph, which ONNX Runtime can run too.

        Args:
            source: stays as it is.
            calibration: crops that ranges come from.
            recipe: which layers, and how.
            collect: stands in for `collect_ranges`, for whoever has measured already.

        Raises:
            EngineError: the recipe does not fit the model.
        """


class Backend(Protocol):
    """Builds engines of one kind, with options of its own."""

    narrow_weights: ClassVar[bool]  # 7 bits for weights unless somebody says otherwise

    @property
    def quantise(self) -> Quantise:
        """Verb one: choose layers and write their 8 bits into the graph."""

    def make(self, source: Source, calibration: CalibrationSet, recipe: Recipe | None, folder: Path) -> Product:
        """Verb two: write the files of an engine into an empty folder; without a recipe nothing is quantised.

        Raises:
            EngineError: it cannot be built.
        """

    def preview(self, source: Source, calibration: CalibrationSet, recipe: Recipe | None) -> Preview:
        """Verb three: say what `make` would do, without doing it."""

    def settle(self, recipe: Recipe, spec: ModelSpec) -> Recipe:
        """The recipe with what was left open filled in as suits this backend and the network."""
