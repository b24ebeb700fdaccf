"""Makes a release of a trained checkpoint: half-precision weights, with the share of CTC that held-out crops chose."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "training"

from robustscanner.program import exit_status

EPILOG = """examples:
  python training/release.py runs/small/best.safetensors -o small.safetensors
  python training/release.py runs/small/best.safetensors -o small.safetensors --name small --joint-ctc 0.8
"""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.safetensors")
    parser.add_argument("--name", metavar="TEXT", help="of the model (default: the checkpoint's)")
    parser.add_argument("--joint-ctc", type=float, metavar="SHARE", help="of CTC, 0…1 (default: the checkpoint's)")
    parser.add_argument(
        "--score-temperature", type=float, metavar="T", help="of scores, as benchmarks/reliability.py fits it"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: release(arguments))


def release(arguments: argparse.Namespace) -> None:
    """Reads, changes the spec, saves.

    Raises:
        RobustScannerError: not a checkpoint, an existing output, or a share of CTC in a model that has no CTC.
    """
    from robustscanner.errors import SpecError
    from robustscanner.output import check_output
    from training.checkpoint import load_checkpoint, save_checkpoint

    check_output(arguments.output, force=arguments.force)
    model, history = load_checkpoint(arguments.checkpoint)
    network = model.spec.network
    if arguments.joint_ctc is not None:
        if not network.ctc_weight or not arguments.joint_ctc:
            raise SpecError(f"--joint-ctc: goes with a share above 0, of a model with one; it has {network.ctc_weight}")
        network = replace(network, ctc_weight=arguments.joint_ctc)
    if arguments.score_temperature is not None:
        network = replace(network, score_temperature=arguments.score_temperature)
    model.spec = replace(model.spec, name=arguments.name or model.spec.name, network=network)
    save_checkpoint(arguments.output, model, history, half=True)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
