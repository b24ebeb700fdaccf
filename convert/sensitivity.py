"""Which layers lose what in 8 bits: each alone, each spared, every way to choose ranges, and the fewest to spare."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "convert"

from robustscanner.program import exit_status
from robustscanner.scoring import add_protocol_argument

from .int8.arguments import MEASURED, add_crop_arguments, load_crops

if TYPE_CHECKING:
    from .engine.accuracy.trial import Trial, Trials
    from .engine.model_source import Source

EPILOG = """examples:
  python convert/sensitivity.py -o edge-layers.json --plot edge-layers.svg        the shipped model
  python convert/sensitivity.py r31.onnx --crops 64 --max-drop 0.3 --calib-data crops/ -o r31-layers.json

Damage is shown three ways: accuracy, words that still read the same, and divergence. Divergence is how far the
probabilities of each character move (Kullback-Leibler, nats). It shows what a few hundred words cannot, and works even
where FP32 reads no word right. All layers that can be quantised are tried, also those that stay in float by default.
"""

Row = dict[str, Any]  # JSON-ready


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL", help="NAME.onnx or checkpoint")
    add_crop_arguments(parser)
    parser.add_argument(
        "--crops", type=int, default=128, metavar="N", help="crops to read each time (default: %(default)s)"
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        default=0.3,
        metavar="POINTS",
        help="find the fewest layers that keep the loss below it",
    )
    parser.add_argument(
        "--backend",
        choices=("onnxruntime", "tensorrt"),
        default="onnxruntime",
        help="quantise as for which (default: %(default)s)",
    )
    add_protocol_argument(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the table; needs matplotlib")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write the figures there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, about: Mapping[str, Any] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix; `about` goes to the head of the figures."""
    parsed = parse_arguments(arguments)
    return exit_status(lambda: _run(parsed, about or {}))


def examine(trials: "Trials", max_drop_points: float, methods: Sequence[str]) -> Row:
    """All tables of one model."""
    from .engine.accuracy.gate import choose_float_layers, rank_layers, try_alone

    alone = try_alone(trials)
    ranking = rank_layers(alone)
    choice = choose_float_layers(ranking, trials, max_drop_points)
    least = {"max_drop_points": max_drop_points, "float_layers": list(choice.float_layers)}
    return {
        "words": trials.words,
        "protocol": trials.scorer.protocol.name,
        "fp32_accuracy": round(trials.base.rate, 4),
        "all_int8": _row(trials.run(()), trials.base),
        "layers": [
            {"layer": n, "alone": _row(alone[n], trials.base), "restored": _row(trials.run([n]), trials.base)}
            for n in ranking
        ],
        "methods": {method: _row(trials.run((), method=method), trials.base) for method in methods},
        "least": least | _row(choice.trial, trials.base),
    }


def print_tables(result: Mapping[str, Any]) -> None:
    """For people: drop in points, words alike in percent, divergence."""
    layers = [row["layer"] for row in result["layers"]]
    width = max(map(len, [*layers, "all in 8 bits"]))
    print(f"{'':<{width}} {'alone in 8 bits':^26} {'all but this':^26}")
    print(f"{'':<{width}}" + f" {'drop':>7} {'alike':>7} {'diverg.':>10}" * 2)
    for row in result["layers"]:
        print(f"{row['layer']:<{width}}{_columns(row['alone'])}{_columns(row['restored'])}")
    print(f"{'all in 8 bits':<{width}}{_columns(result['all_int8'])}")
    for method, row in result["methods"].items():
        print(f"{'  ranges by ' + method:<{width}}{_columns(row)}")
    if not result["fp32_accuracy"]:
        print("FP32 reads no word right (random weights?): drops say nothing here, divergence does")
        return
    least = result["least"]
    kept = ", ".join(least["float_layers"]) or "none"
    print(f"to lose at most {least['max_drop_points']:g} points, keep in FP32: {kept}")


def _run(parsed: argparse.Namespace, about: Mapping[str, Any]) -> None:
    from robustscanner.engine import default_engine
    from robustscanner.output import replacing

    from .engine.model_source import load_source
    from .graph.model_file import prepare_output
    from .int8.recipe import Recipe

    for path in filter(None, (parsed.output, parsed.plot)):
        prepare_output(path, force=True)
    with TemporaryDirectory() as scratch:
        source = load_source(parsed.model or default_engine(), Path(scratch))
        parsed.calib_method = Recipe(parsed.calib_method).settled(source.spec, (), narrow=False).method
        head = {"kind": "sensitivity", "what": __doc__, **about, **_facts(source, parsed)}
    trials = _open_trials(source, parsed)
    result = head | examine(trials, parsed.max_drop, MEASURED)
    print_tables(result)
    if parsed.output:
        with replacing(parsed.output, force=True) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if parsed.plot:
        from .engine.accuracy.chart import draw

        draw(result).savefig(parsed.plot)


def _open_trials(source: "Source", parsed: argparse.Namespace) -> "Trials":
    from .engine.accuracy.trial import Trials
    from .engine.cpu.backend import CpuBackend
    from .engine.trt.backend import TensorRTBackend
    from .int8.recipe import Recipe

    calibration = load_crops(parsed.calib_data, parsed.calib_images, source.spec.input)
    quantise = {"onnxruntime": CpuBackend.quantise, "tensorrt": TensorRTBackend.quantise}[parsed.backend]
    recipe = Recipe(parsed.calib_method, exclude=(), reduce_range=parsed.backend == "onnxruntime")  # as it is built
    crops = calibration.thinned(parsed.crops)
    return Trials(quantise, source, calibration, crops, recipe, parsed.protocol)


def _facts(source: "Source", parsed: argparse.Namespace) -> Row:
    import onnxruntime  # type: ignore[import-untyped]

    from robustscanner.engine import file_sha256

    facts = {"model": source.spec.name, "input_sha256": file_sha256(source.path), "method": parsed.calib_method}
    return {**facts, "backend": parsed.backend, "versions": {"onnxruntime": onnxruntime.__version__}}


def _row(trial: "Trial", base: "Trial") -> Row:
    drop, alike = round(trial.drop_points(base), 3), round(trial.agreement, 4)
    return {"drop_points": drop, "agreement": alike, "divergence": float(f"{trial.divergence:.4g}")}


def _columns(row: Mapping[str, float]) -> str:
    return f" {row['drop_points']:7.2f} {100 * row['agreement']:6.1f}% {row['divergence']:10.2g}"


if __name__ == "__main__":
    sys.exit(main())
