"""Command-line options: what to calibrate with, and what to put into 8 bits."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from robustscanner.program import whole_number

if TYPE_CHECKING:
    from robustscanner.spec import InputSpec

    from .calibration import CalibrationSet
    from .recipe import Recipe

CALIB_DATA = Path(__file__).parents[2] / "calib_data"  # of the checkout
MEASURED = ("max", "entropy", "percentile", "mse")  # methods of choosing ranges that look at calibration crops
METHODS = (*MEASURED, "qat")
AUTO = "auto"  # as recipe.py, which would load onnx for --help


def add_crop_arguments(parser: argparse.ArgumentParser) -> None:
    """What to calibrate with."""
    parser.add_argument(
        "--calib-data",
        type=Path,
        default=CALIB_DATA,
        metavar="DIR",
        help="folder with labels.tsv (default: calib_data)",
    )
    parser.add_argument(
        "--calib-images", type=whole_number, default=512, metavar="N", help="crops to draw (default: 512)"
    )
    parser.add_argument(
        "--calib-method",
        choices=(AUTO, *METHODS),
        default=AUTO,
        help="how ranges are chosen; auto: where CTC has a say, mse for small and entropy for others, else max; "
        "qat: as quantisation-aware training left "
        "them (default: %(default)s)",
    )


def add_calibration_arguments(parser: argparse.ArgumentParser) -> None:
    """What to calibrate with, and what to put into 8 bits."""
    add_crop_arguments(parser)
    parser.add_argument(
        "--exclude",
        action="append",
        metavar="NAME",
        help="layer that stays FP32, a pattern of names; repeatable; '' for none (default: what attention compares)",
    )
    parser.add_argument(
        "--reduce-range",
        action=argparse.BooleanOptionalAction,
        help="7-bit weights, right on every CPU, or 8-bit ones, which x86 without VNNI adds wrongly "
        "(default: 8 for small where this CPU can, else 7)",
    )


def load_crops(folder: Path, images: int, spec: "InputSpec") -> "CalibrationSet":
    """The crops asked for, with one line on stderr when some had to be left out.

    Raises:
        DataError: there are none.
    """
    from .calibration import load_calibration

    calibration = load_calibration(folder, spec, images=images)
    if bad := calibration.unreadable:
        print(f"warning: {len(bad)} unreadable pictures left out; the first: {bad[0]}", file=sys.stderr)
    return calibration


def recipe_of(parsed: argparse.Namespace) -> "Recipe":
    """How to quantise, some of it perhaps left open; see `Recipe.settled`."""
    from .recipe import Recipe

    exclude = (AUTO,) if parsed.exclude is None else tuple(filter(None, parsed.exclude))
    return Recipe(parsed.calib_method, exclude, parsed.reduce_range)
