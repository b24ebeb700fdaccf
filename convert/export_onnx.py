"""Exports a checkpoint as one ONNX graph: pixels in, tokens out, encoder and greedy decoder inside."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "convert"

from robustscanner.program import exit_status

EPILOG = """examples:
  python convert/export_onnx.py runs/edge/best.safetensors -o edge.onnx
  python convert/export_onnx.py r31.safetensors -o r31.onnx --fold-values
"""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="NAME.safetensors of training or import")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.onnx")
    parser.add_argument(
        "--fold-values", action="store_true", help="project values once, in the encoder, not in every step"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(
        lambda: export(arguments.checkpoint, arguments.output, fold_values=arguments.fold_values, force=arguments.force)
    )


def export(checkpoint: Path, output: Path, *, fold_values: bool, force: bool) -> None:
    """Load, build, simplify, compare, save.

    Raises:
        RobustScannerError: a checkpoint that cannot be used, an existing output, or a graph that reads differently.
    """
    from training.checkpoint import load_checkpoint, load_ranges

    from .graph.export import build_graph, compare, simplify
    from .graph.model_file import file_step, prepare_output, save_model, with_metadata

    prepare_output(output, force=force)
    model, history = load_checkpoint(checkpoint)
    graph = simplify(build_graph(model, fold_values=fold_values))
    step = file_step("export", "convert/export_onnx.py", checkpoint) | {"fold_values": fold_values}
    step["largest_score_difference"] = compare(graph, model)
    graph = with_metadata(graph, model.spec, [*history, step], ranges=load_ranges(checkpoint))
    save_model(graph, output, force=force)
    difference = step["largest_score_difference"]
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, scores within {difference:.1e} of PyTorch")


if __name__ == "__main__":
    sys.exit(main())
