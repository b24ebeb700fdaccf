"""Imports weights of RobustScanner trained with PaddleOCR, MMOCR or OpenOCR; needs none of them."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "convert"

from robustscanner.errors import RobustScannerError
from robustscanner.program import exit_status

if TYPE_CHECKING:
    from robustscanner.spec import ModelSpec
    from training.model.robustscanner import RobustScanner

    from .foreign.dictionary import Dictionary
    from .foreign.layouts import ForeignLayout
    from .foreign.weight_file import WeightFile

EPILOG = """examples:
  import_checkpoint.py rec_r31_robustscanner.tar -o r31.safetensors     PaddleOCR; or best_accuracy.pdparams
  import_checkpoint.py robustscanner_r31.pth -o r31.safetensors         MMOCR 0.x or 1.x
  import_checkpoint.py best.pth -o r31.safetensors --dict my_dict.txt   OpenOCR, another dictionary
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportOptions:
    """What to import."""

    source: Path
    output: Path  # NAME.safetensors
    project: str | None = None  # whose checkpoint it must be; None: whoever's
    dictionary: Path | None = None  # one character a line; None: the published one of that size
    force: bool = False  # replace an existing file


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    options = _parse(arguments)
    return exit_status(lambda: import_checkpoint(options), interrupted="interrupted; nothing was written")


def import_checkpoint(options: ImportOptions) -> None:
    """Read, recognise, check, map, save.

    Raises:
        RobustScannerError: anything the user can fix; then nothing was written.
    """
    from robustscanner.output import check_output

    from .foreign.dictionary import read_dictionary
    from .foreign.weight_file import open_weight_file

    save_checkpoint = _save_checkpoint()
    check_output(options.output, force=options.force)
    dictionary = read_dictionary(options.dictionary) if options.dictionary else None
    with open_weight_file(options.source) as file:
        model, step = _convert(file, options, dictionary)
    save_checkpoint(options.output, model, [step])
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.0f} MB, ready for convert/build_engine.py")


def _parse(arguments: Sequence[str] | None) -> ImportOptions:
    from .foreign.layouts import PROJECTS

    parser = argparse.ArgumentParser(
        prog="import_checkpoint.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help=".pdparams, .tar, .pth or .safetensors")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.safetensors")
    parser.add_argument(
        "--from",
        dest="project",
        choices=PROJECTS,
        help="refuse others (default: found out by the names of the weights)",
    )
    parser.add_argument("--dict", dest="dictionary", type=Path, metavar="FILE", help="UTF-8, one character a line")
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")
    parser.add_argument("-v", "--verbose", action="store_true", help="list what became of each array")
    parsed = parser.parse_args(arguments)
    if parsed.output.suffix != ".safetensors":
        parser.error(f"{parsed.output}: name the output NAME.safetensors")
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(message)s")
    return ImportOptions(parsed.source, parsed.output, parsed.project, parsed.dictionary, parsed.force)


def _save_checkpoint() -> Any:
    """`training.checkpoint.save_checkpoint`, which an installation without the checkout lacks."""
    try:
        from training.checkpoint import save_checkpoint
    except ImportError as error:
        raise RobustScannerError(
            f"import_checkpoint needs a checkout of the kit and PyTorch: pip install -e '.[train]' (no {error.name})"
        ) from None
    return save_checkpoint


def _convert(
    file: "WeightFile", options: ImportOptions, given: "Dictionary | None"
) -> tuple["RobustScanner", dict[str, Any]]:
    """The model with their weights, and a line for its history."""
    from robustscanner.spec import ModelSpec

    from .foreign.dictionary import choose_dictionary
    from .foreign.layouts import check_names, check_shapes, count_characters, describe, find_state, recognise

    state, where = find_state(file.tree)
    ours = _shapes(ModelSpec("r31"))
    layout = recognise(state, ours, options.project)
    check_names(state, layout, ours)
    dictionary = choose_dictionary(given, count_characters(state, layout), layout.alphabets)
    spec = describe(state, layout, options.output.stem, dictionary.characters)
    check_shapes(state, layout, _shapes(spec))
    model = _fill(file, state, layout, spec)
    _print_summary(options.source, layout, where, spec, dictionary)
    return model, _history_step(options.source, layout, dictionary)


def _shapes(spec: "ModelSpec") -> dict[str, tuple[int, ...]]:
    """Our parameters, without making any; counters of BN steps left out."""
    import torch

    from training.model.robustscanner import RobustScanner

    from .foreign.layouts import COUNTER

    with torch.device("meta"):
        tensors = RobustScanner(spec).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if not name.endswith(COUNTER)}


def _fill(file: "WeightFile", state: dict[str, Any], layout: "ForeignLayout", spec: "ModelSpec") -> "RobustScanner":
    import torch

    from training.model.robustscanner import RobustScanner

    from .foreign.layouts import COUNTER, to_ours

    with torch.device("meta"):
        model = RobustScanner(spec)
    weights = {name: torch.zeros((), dtype=torch.long) for name in model.state_dict() if name.endswith(COUNTER)}
    for name in [name for name in model.state_dict() if name not in weights]:
        foreign = layout.foreign_name(name)
        weights[name] = torch.from_numpy(to_ours(name, file.array(state[foreign]), layout))
        logger.info("%s -> %s%s", foreign, name, ", transposed" if layout.turned(name) else "")
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _history_step(source: Path, layout: "ForeignLayout", dictionary: "Dictionary") -> dict[str, Any]:
    from robustscanner import __version__
    from robustscanner.engine import file_sha256

    step = {"step": "import", "tool": "convert/import_checkpoint.py", "version": __version__, "input": source.name}
    return step | {"sha256": file_sha256(source), "layout": layout.title, "dictionary": dictionary.source}


def _print_summary(
    source: Path, layout: "ForeignLayout", where: str, spec: "ModelSpec", dictionary: "Dictionary"
) -> None:
    charset, size = spec.charset, spec.input
    print(f"{source}: RobustScanner of {layout.title}{f', weights from {where!r}' if where else ''}")
    characters = "".join(dictionary.characters)
    shown = characters if len(characters) <= 100 else f"{characters[:20]}…{characters[-5:]}"
    print(f"  characters  {len(characters)}: {shown} ({dictionary.source})")
    ids = f"start {charset.start_id}, end {charset.end_id}, pad {charset.pad_id}, unknown {charset.unknown_id}"
    print(f"  ids         {ids}; {charset.class_count} classes")
    print(f"  length      {spec.network.max_length} steps, the end token included")
    print(f"  pixels      BGR turned to RGB in the first layer; (pixel - {size.mean:g}) / {size.scale:g}")


if __name__ == "__main__":
    sys.exit(main())
