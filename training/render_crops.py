"""Renders a folder of labelled word crops: calibration data, or training words to look at."""

import argparse
import hashlib
import sys
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "training"

from robustscanner.program import exit_status

EPILOG = """examples:
  python training/render_crops.py -o crops --count 500 --words words.txt
  python training/render_crops.py -o signs --text EXIT Platform 24h
  python training/render_crops.py -o contextless --codes --held-out-fonts --count 1000 --seed 12
"""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="gets images/ and labels.tsv")
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument("--words", type=Path, metavar="FILE", help="word list, one a line, that texts are made from")
    texts.add_argument("--text", nargs="+", metavar="TEXT", help="one crop of each of these")
    texts.add_argument(
        "--codes", action="store_true", help="numbers, amounts and codes, which nobody can guess, but can read"
    )
    parser.add_argument("--count", type=int, default=320, metavar="N", help="crops of --words (default: %(default)s)")
    parser.add_argument("--held-out-fonts", action="store_true", help="only fonts that training never draws with")
    parser.add_argument("--seed", type=int, default=20, metavar="N", help="same seed and fonts, same crops")
    parser.add_argument(
        "-f", "--force", action="store_true", help="add to a folder that holds labels.tsv, replacing it"
    )
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: render(arguments))


def render(arguments: argparse.Namespace) -> None:
    """Writes the pictures, `labels.tsv` (path, label) and `manifest.tsv` (path, SHA-256)."""
    import cv2
    import numpy as np

    from robustscanner.labels import DataError
    from robustscanner.spec import DICT90
    from training.data.render.fonts import find_fonts, split_fonts
    from training.data.render.synth import LEGIBLE_CODES, SynthOptions, WordSynthesizer
    from training.data.render.text import FUNCTION_WORDS

    images = arguments.output / "images"
    if (arguments.output / "labels.tsv").exists() and not arguments.force:
        raise DataError(
            f"{arguments.output}: holds labels.tsv already; replace it with --force or choose another folder"
        )
    images.mkdir(parents=True, exist_ok=True)
    words = arguments.words.read_text(encoding="utf-8").split() if arguments.words else arguments.text or FUNCTION_WORDS
    fonts = split_fonts(find_fonts())[1] if arguments.held_out_fonts else None
    if fonts == []:
        raise DataError("no font of this system is held out; install more of Debian's fonts-… packages")
    options = LEGIBLE_CODES if arguments.codes else SynthOptions()
    synthesizer = WordSynthesizer(words, characters=DICT90, fonts=fonts, options=options)
    rng = np.random.default_rng(arguments.seed)
    if arguments.text:
        crops = ((synthesizer.render(text, rng), text) for text in arguments.text)
    else:
        crops = (synthesizer.sample(rng) for _ in range(arguments.count))
    labels, sums = [], []
    for index, (picture, label) in enumerate(crops):
        # JPEG as most crops come, but at a quality that adds nothing to what the renderer degraded on purpose.
        data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        path = images / f"{index:04d}.jpg"
        path.write_bytes(data)
        labels.append(f"images/{path.name}\t{label}\n")
        sums.append(f"images/{path.name}\t{hashlib.sha256(data).hexdigest()}\n")
    (arguments.output / "labels.tsv").write_text("".join(labels), encoding="utf-8")
    (arguments.output / "manifest.tsv").write_text("".join(sums), encoding="utf-8")
    print(f"{arguments.output}: {len(labels)} crops")


if __name__ == "__main__":
    sys.exit(main())
