"""Command-line options: what an engine may lose."""

import argparse
from typing import TYPE_CHECKING

from robustscanner.errors import EngineError
from robustscanner.program import number_between

if TYPE_CHECKING:
    from .gate import GateOptions


def add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    """What an engine may lose."""
    parser.add_argument(
        "--max-drop",
        type=number_between(0, 100, "a number of percentage points, 0 to 100"),
        metavar="POINTS",
        help="refuse an engine that reads fewer calibration words than FP32, by more than this many percentage points",
    )
    parser.add_argument(
        "--repair", action="store_true", help="with --max-drop: restore layers to FP32 until it fits, instead"
    )


def gate_options(parsed: argparse.Namespace) -> "GateOptions | None":
    """What the gate asks for; None where any accuracy will do.

    Raises:
        EngineError: `--repair` where there is nothing to repair.
    """
    from .gate import GateOptions

    if parsed.repair and (parsed.max_drop is None or parsed.precision != "int8"):
        what = "has no bound to reach; give --max-drop POINTS" if parsed.max_drop is None else "is for --int8 only"
        raise EngineError(f"--repair: {what}, or leave it out")
    return None if parsed.max_drop is None else GateOptions(parsed.max_drop, parsed.repair)
