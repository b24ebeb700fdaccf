"""Trains RobustScanner on rendered words and labelled crops."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "training"

from robustscanner.program import exit_status

if TYPE_CHECKING:
    import torch

    from robustscanner.labels import LabelledCrop
    from training.config import TrainConfig
    from training.data.source import WordSource
    from training.data.stream import MixedStream
    from training.distributed import Processes
    from training.trainer import Trainer

EPILOG = """examples:
  python training/train.py training/configs/edge.yaml -o runs/edge --words words.txt --crops crops/*
  python training/train.py training/configs/edge.yaml -o runs/edge --words words.txt --crops crops/* --resume
  python training/train.py training/configs/edge.yaml -o runs/try --words words.txt --set steps=200 --set seed=7
  python training/train.py training/configs/edge.yaml -o runs/edge --data mjsynth.lmdb=3 crops/svt_train words.txt=2
  torchrun --nproc-per-node 4 training/train.py training/configs/r31.yaml -o runs/r31 --words words.txt --crops crops/*
  python training/train.py training/configs/finetune.yaml -o runs/plates --words plates.txt --crops plates \\
      --init-from runs/edge/best.safetensors
"""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML settings, see training/configs")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="states, best checkpoint, log")
    parser.add_argument("--words", type=Path, metavar="FILE", help="word list for rendering, one a line")
    parser.add_argument(
        "--crops",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders with labels.tsv; one named twice counts twice",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="PATH[=WEIGHT]",
        help="LMDBs, folders and word lists with a weight each, instead of --words, --crops and real_share",
    )
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="replace a setting"
    )
    parser.add_argument(
        "--init-from", type=Path, metavar="CHECKPOINT", help="start from its weights; its characters may be others"
    )
    parser.add_argument("--teacher", type=Path, metavar="CHECKPOINT", help="learn from its answers too (distillation)")
    parser.add_argument(
        "--validation",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="labelled crops that choose the best model (default: a tenth of --crops, which is not trained on)",
    )
    parser.add_argument("--resume", action="store_true", help="continue from the newest state in DIR")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that render words (default: 1)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the training process (default: all it may use)")
    parser.add_argument("--tensorboard", action="store_true", help="write DIR/tensorboard as well")
    parser.add_argument("-f", "--force", action="store_true", help="start again in a folder that holds a run")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: train(arguments), interrupted="interrupted; continue with --resume")


def train(arguments: argparse.Namespace) -> None:
    """Reads the settings, meets the other processes if there are any, and trains.

    Raises:
        RobustScannerError: anything the user can fix.
    """
    import torch

    from robustscanner.cpu import available_cores
    from training.config import load_config
    from training.distributed import joined

    config = load_config(arguments.config, arguments.overrides)
    _check_arguments(arguments, config)
    torch.set_num_threads(arguments.threads or available_cores())
    kind = arguments.device if arguments.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    with joined(kind) as processes:
        device = torch.device(kind, processes.local_rank) if kind == "cuda" else torch.device(kind)
        if kind == "cuda":
            torch.cuda.set_device(device)  # NCCL takes the current one
        _start_logging(arguments, processes)
        _train(arguments, config, processes, device)


def _train(
    arguments: argparse.Namespace, config: "TrainConfig", processes: "Processes", device: "torch.device"
) -> None:
    from tqdm import tqdm  # type: ignore[import-untyped]
    from tqdm.contrib.logging import logging_redirect_tqdm  # type: ignore[import-untyped]

    from training.distill import load_teacher
    from training.progress import Report
    from training.trainer import Trainer

    sources = _sources(arguments, config)
    stream = _open_stream(sources, config, processes)
    trainer = Trainer(
        config,
        arguments.output,
        _validation(arguments, sources, config),
        init_from=None if arguments.resume else arguments.init_from,
        teacher=load_teacher(arguments.teacher, config.spec) if arguments.teacher else None,
        device=device,
        processes=processes,
    )
    board = _open_folder(arguments, trainer)
    pinned = device.type == "cuda"  # copied to the GPU while it computes
    batches = stream.batches(workers=arguments.workers, first_step=trainer.step, pin_memory=pinned)
    log = trainer.folder.log if processes.is_first else None
    quiet = None if processes.is_first else True  # None: not on a terminal; the log file says the same
    with tqdm(total=config.steps, initial=trainer.step, unit="step", disable=quiet) as bar, logging_redirect_tqdm():
        report = Report(log, bar, board, steps=config.steps, words=config.batch_size)
        trainer.run(batches, report)


def _sources(arguments: argparse.Namespace, config: "TrainConfig") -> "list[WordSource]":
    """What to train on; of --crops, every crop is as likely as any other."""
    from robustscanner.labels import read_labels
    from training.config import ConfigError
    from training.data.source import WordSource

    if arguments.data and (arguments.words or arguments.crops):
        raise ConfigError("--data: says where all words come from; leave out --words and --crops")
    if arguments.data:
        return [WordSource.parse(text) for text in arguments.data]
    counts = [len(read_labels(folder)) for folder in arguments.crops]
    real_share = (config.real_share if arguments.words else 1.0) if counts else 0.0
    shares = [(folder, real_share * count / sum(counts)) for folder, count in zip(arguments.crops, counts, strict=True)]
    sources = [WordSource("render", arguments.words, 1 - real_share)] if arguments.words and real_share < 1 else []
    return [*sources, *(WordSource("folder", folder, share) for folder, share in shares if share)]


def _validation(
    arguments: argparse.Namespace, sources: "list[WordSource]", config: "TrainConfig"
) -> "list[LabelledCrop]":
    """The crops that choose the best model: those of --validation, or the ones held out of the folders."""
    from robustscanner.labels import read_labels
    from training.data.source import held_out_crops

    if not arguments.validation:
        return held_out_crops(sources, config.held_out)
    return [crop for folder in arguments.validation for crop in read_labels(folder) if crop.label]


def _check_arguments(arguments: argparse.Namespace, config: "TrainConfig") -> None:
    from training.config import ConfigError
    from training.run_folder import RunFolder

    if not arguments.resume and not arguments.force and RunFolder(arguments.output).states():
        raise ConfigError(f"{arguments.output}: holds a run; continue it with --resume or replace it with --force")
    if config.qat and not arguments.init_from and not arguments.resume:
        raise ConfigError("qat: fine-tunes a trained model; give one with --init-from CHECKPOINT")


def _start_logging(arguments: argparse.Namespace, processes: "Processes") -> None:
    import logging

    level = logging.DEBUG if arguments.verbose else logging.INFO
    logging.basicConfig(level=level if processes.is_first else logging.WARNING, format="%(asctime)s %(message)s")


def _open_folder(arguments: argparse.Namespace, trainer: "Trainer") -> Any:
    """Makes the folder ready for a new or a resumed run; returns what writes for TensorBoard, if wanted."""
    from training.config import save_config
    from training.progress import open_board

    folder = trainer.folder
    if arguments.resume:
        trainer.resume()
    if not trainer.processes.is_first:
        return None
    folder.path.mkdir(parents=True, exist_ok=True)
    if arguments.resume:
        folder.rewind_log(trainer.step)
    else:
        folder.clear()
    save_config(trainer.config, folder.config, sys.argv)
    return open_board(folder.tensorboard, trainer.step) if arguments.tensorboard else None


def _open_stream(sources: "list[WordSource]", config: "TrainConfig", processes: "Processes") -> "MixedStream":
    from training.data.source import open_sources
    from training.data.stream import MixedStream

    return MixedStream(
        config.spec,
        open_sources(sources, config.spec, held_out=config.held_out),
        batch_size=processes.share(config.batch_size),
        bucket_batches=config.bucket_batches,
        seed=config.seed,
        shard=(processes.rank, processes.count),
    )


if __name__ == "__main__":
    sys.exit(main())
