"""Trains RobustScanner on rendered words and labelled crops."""

import argparse
import os
import sys
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "training"

from robustscanner.program import exit_status

EPILOG = """examples:
  python training/train.py training/configs/edge.yaml -o runs/edge --words words.txt --crops crops/*
  python training/train.py training/configs/edge.yaml -o runs/edge --words words.txt --crops crops/* --resume
  python training/train.py training/configs/edge.yaml -o runs/try --words words.txt --set steps=200 --set seed=7
"""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML settings, see training/configs")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="last and best checkpoint, log")
    parser.add_argument("--words", type=Path, required=True, metavar="FILE", help="word list for rendering, one a line")
    parser.add_argument(
        "--crops",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders with labels.tsv; one named twice counts twice",
    )
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="replace a setting"
    )
    parser.add_argument("--resume", action="store_true", help="continue from DIR/last.safetensors")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that render words (default: 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="of the training process")
    parser.add_argument("-f", "--force", action="store_true", help="start anew in a folder that holds a run")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to mend."""
    arguments = parse_arguments()
    return exit_status(lambda: train(arguments), interrupted="interrupted; continue with --resume")


def train(arguments: argparse.Namespace) -> None:
    """Wires data, model and loop together."""
    import logging

    import torch
    from torch.utils.data import DataLoader
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from training.config import ConfigError, load_config
    from training.data.folder import is_held_out, read_labels
    from training.data.stream import WordStream
    from training.data.synth import WordSynthesizer
    from training.trainer import Report, Trainer

    logging.basicConfig(level=logging.DEBUG if arguments.verbose else logging.INFO, format="%(asctime)s %(message)s")
    config = load_config(arguments.config, arguments.overrides)
    if not arguments.resume and not arguments.force and (arguments.output / "last.safetensors").exists():
        raise ConfigError(f"{arguments.output}: holds a run; continue it with --resume or replace it with --force")
    torch.set_num_threads(arguments.threads)
    crops = [crop for folder in arguments.crops for crop in read_labels(folder)]
    held_out = list(dict.fromkeys(crop for crop in crops if is_held_out(crop, config.held_out_share)))
    kept = [crop for crop in crops if not is_held_out(crop, config.held_out_share)]
    trainer = Trainer(config, arguments.output, held_out)
    if arguments.resume:
        trainer.resume()
    words = arguments.words.read_text(encoding="utf-8").split()
    stream = WordStream(
        config.spec,
        WordSynthesizer(words, characters=config.characters),
        kept,
        real_share=config.real_share,
        batch_size=config.batch_size,
        bucket_batches=config.bucket_batches,
        seed=config.seed + trainer.step,  # a resumed run draws other words than the first part did
    )
    loader = DataLoader(
        stream, batch_size=None, num_workers=arguments.workers, prefetch_factor=4 if arguments.workers else None
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tqdm(total=config.steps, initial=trainer.step, unit="step", disable=None) as bar, logging_redirect_tqdm():
        trainer.run(iter(loader), Report(arguments.output / "log.jsonl", bar))


if __name__ == "__main__":
    sys.exit(main())
