"""The gate an engine has to pass: how much accuracy it may lose, and which layers return to FP32 when it loses more."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustscanner.errors import EngineError
from robustscanner.scoring import AUTO

if TYPE_CHECKING:
    from robustscanner.engine import EngineAccuracy
    from robustscanner.scoring import Scorer

    from ...int8.calibration import CalibrationSet
    from ...int8.recipe import Recipe
    from ..backend import Quantise
    from ..model_source import Source
    from .trial import Trial, Trials

RANKING_CROPS = 64  # enough to rank layers; whether an engine passes is decided on all crops

_TOLERANCE = 1e-9  # 0.3 points of 1000 words are 3 words, whatever binary fractions make of it

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GateOptions:
    """What an engine may lose against FP32 on the calibration crops."""

    max_drop_points: float  # percentage points of words
    repair: bool = False  # restore layers until it fits, instead of refusing

    def lets_pass(self, accuracy: "EngineAccuracy") -> bool:
        """Whether an engine loses no more."""
        return drop_points(accuracy) <= self.max_drop_points + _TOLERANCE

    def check_measured(self, accuracy: "EngineAccuracy", scorer: "Scorer") -> None:
        """Raises `EngineError` where FP32 reads no word right: such a gate would let everything pass."""
        if not accuracy.words or not accuracy.fp32_rate:
            problem = scorer.problem(accuracy.words)
            raise EngineError(
                f"--max-drop {self.max_drop_points:g}: nothing to measure: {problem}; "
                "give --calib-data with pictures and labels of the model's own kind"
            )

    def check(self, accuracy: "EngineAccuracy", precision: str, *, saturates: bool = False) -> None:
        """Raises `EngineError` with figures and cure when it loses more.

        `saturates`: 8-bit weights were asked for, on a CPU whose sums of products do not hold them.
        """
        if self.lets_pass(accuracy):
            return
        figures = (
            f"FP32 reads {accuracy.fp32_rate:.2%} of {accuracy.words} words, this engine {accuracy.engine_rate:.2%}"
        )
        raise EngineError(
            f"--max-drop {self.max_drop_points:g}: {precision} loses {drop_points(accuracy):.2f} points ({figures}); "
            + self._cure(precision, saturates)
        )

    def step(self, accuracy: "EngineAccuracy", restored: Sequence[str]) -> dict[str, Any]:
        """A line of the engine's history; `restored` are the layers that went back to FP32 for the gate."""
        drop = round(drop_points(accuracy), 4)
        facts = {"max_drop_points": self.max_drop_points, "drop_points": drop, "restored": list(restored)}
        return {"step": "gate", "tool": "convert/build_engine.py", **facts}

    def _cure(self, precision: str, saturates: bool) -> str:
        if precision != "int8":
            return "build it with --fp32"
        if saturates:
            return "this CPU's products saturate with 8-bit weights: take --reduce-range instead of --no-reduce-range"
        if self.repair:
            return "the layers are not to blame; build it with --fp16 or --fp32"
        return "add --repair to keep the worst layers in FP32, or try another --calib-method"


@dataclass(frozen=True)
class Choice:
    """Layers to keep in FP32 so that the rest may be quantised."""

    float_layers: tuple[str, ...]
    trial: "Trial"  # with them


def drop_points(accuracy: "EngineAccuracy") -> float:
    """Percentage points of words that an engine loses; negative when it wins some."""
    return 100 * (accuracy.fp32_rate - accuracy.engine_rate)


def rank_layers(alone: "dict[str, Trial]") -> list[str]:
    """The most harmful first, by what each does when it is the only one in 8 bits.

    Ranked by divergence, which looks at every character. Accuracy on a few hundred words only sees words that change.
    """
    return sorted(alone, key=lambda layer: -alone[layer].divergence)


def try_alone(trials: "Trials") -> "dict[str, Trial]":
    """Each layer in 8 bits, all others in float."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    layers = tqdm(trials.layers, "layers", leave=False, disable=None, file=sys.stderr)
    return {layer: trials.run([other for other in trials.layers if other != layer]) for layer in layers}


def choose_float_layers(ranking: Sequence[str], trials: "Trials", max_drop_points: float) -> Choice:
    """Greedily the smallest set: restores the most harmful layers until it fits, then takes back what was not needed.

    Of all subsets there may be a smaller one; trying them all would take 2^layers runs.
    """
    allowed = max_drop_points + _TOLERANCE
    kept: list[str] = []
    trial = trials.run(kept)
    for layer in ranking:
        if trial.drop_points(trials.base) <= allowed:
            break
        kept.append(layer)
        trial = trials.run(kept)
        logger.info("FP32 again: %s; drop %.2f points", layer, trial.drop_points(trials.base))
    for layer in kept[-2::-1]:  # the last one was needed
        without = [other for other in kept if other != layer]
        found = trials.run(without)
        if found.drop_points(trials.base) <= allowed:
            kept, trial = without, found
            logger.info("in 8 bits after all: %s", layer)
    return Choice(tuple(kept), trial)


def repair(
    quantise: "Quantise",
    source: "Source",
    calibration: "CalibrationSet",
    recipe: "Recipe",
    gate: GateOptions,
    *,
    protocol: str = AUTO,
) -> tuple[str, ...]:
    """Layers of a recipe that have to go back to FP32 to pass the gate.

    Raises:
        EngineError: no layer could stay in 8 bits.
    """
    from .trial import Trials

    trials = Trials(quantise, source, calibration, calibration, recipe, protocol)
    ranking = rank_layers(try_alone(trials.on(calibration.thinned(RANKING_CROPS))))
    choice = choose_float_layers(ranking, trials, gate.max_drop_points)
    if len(choice.float_layers) == len(trials.layers):
        raise EngineError(
            f"--max-drop {gate.max_drop_points:g}: no layer can stay in 8 bits; "
            "try --calib-method mse, or build it with --fp16 or --fp32"
        )
    return choice.float_layers
