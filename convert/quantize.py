"""Quantises the convolutions of an encoder to INT8: runs calibration crops through it and writes Q/DQ nodes."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "convert"

from robustscanner.program import exit_status

from .int8.arguments import add_calibration_arguments, load_crops, recipe_of

EPILOG = """examples:
  python convert/quantize.py edge.onnx -o edge-int8.onnx
  python convert/quantize.py r31.onnx -o r31-int8.onnx --calib-data crops/ --calib-method entropy
  python convert/quantize.py edge.onnx -o all-int8.onnx --exclude ''
"""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="of export_onnx.py")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.onnx")
    add_calibration_arguments(parser)
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    parser.add_argument("-v", "--verbose", action="store_true", help="name the convolutions that stay FP32")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from .engine.model_source import load_source
    from .graph.model_file import file_step, prepare_output, save_model, with_metadata
    from .int8.calibration import collect_ranges
    from .int8.placement import quantisable
    from .int8.qdq_onnxruntime import quantise_convolutions
    from .int8.recipe import KEY_LAYERS, Quantized

    output = arguments.output
    prepare_output(output, force=arguments.force)
    source = load_source(arguments.model)
    calibration = load_crops(arguments.calib_data, arguments.calib_images, source.spec.input)
    recipe = recipe_of(arguments).settled(source.spec, KEY_LAYERS, narrow=True)
    layers = recipe.choose(quantisable(source.model.graph))
    model, ranges = quantise_convolutions(source.model, layers, recipe, calibration, collect_ranges)
    result = Quantized.of(model, layers, recipe, exported=source.model, calibration=calibration, ranges=ranges)
    step = file_step("quantize", "convert/quantize.py", arguments.model) | result.details
    save_model(with_metadata(result.model, source.spec, [*source.history, step]), output, force=arguments.force)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {result}")
    if arguments.verbose:
        print(*(f"FP32: {name}" for name in result.excluded), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
