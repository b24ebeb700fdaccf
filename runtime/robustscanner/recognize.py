"""Reads the words in cropped pictures."""

import argparse
import csv
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from robustscanner import __version__
from robustscanner.errors import ConstraintError, ImageError, RobustScannerError
from robustscanner.output import OutputError, check_output, replacing
from robustscanner.pictures import find_pictures, read_list
from robustscanner.program import (
    INTERRUPTED,
    TERMINATED,
    Terminated,
    discard_stdout,
    heeding_sigterm,
    number_between,
    unbroken,
)

if TYPE_CHECKING:
    from robustscanner.preprocess import Image
    from robustscanner.recognizer import Reading, Recognizer
    from robustscanner.sheet import Cell

EXAMPLES = """\
examples:
  %(prog)s sign.png                          path, text and score, separated by tabs
  %(prog)s crops/ more/*.jpg                 a folder stands for the pictures directly in it
  find . -name '*.png' | %(prog)s -          a list of paths, one a line
  %(prog)s --csv -o words.csv --engine word.engine crops/
  %(prog)s --pattern '[A-Z]{2}\\d{2,4}' plates/      no text that is not like that
  %(prog)s --sheet sheet.png crops/          one picture of all pictures, with what was read below
  %(prog)s --letters --json sign.png         where each letter stands, and what else it might be
  %(prog)s --boxes boxes.json --json photo.jpg       the words of a photo, where a detector found them

exit status: 0 all pictures were read, 1 an error, or some could not be read, 2 wrong usage,
  130 after Ctrl-C: writes nothing, 143 after SIGTERM: writes what was read so far
"""

Quad = list[list[float]]  # four points of a word of a photo
JsonLetters = list[dict[str, object]]  # see `letters.as_json`


class Write(Protocol):
    """Writes one reading; its letters, and the quadrilateral where the word stands in a photo, where they are known."""

    def __call__(
        self, path: str, reading: "Reading", letters: JsonLetters | None = None, quad: Quad | None = None
    ) -> None: ...


_PROGRESS_PICTURES = 200  # shorter work needs no progress line
_PROGRESS_SECONDS = 0.2

_MAX_COUNT = 1024  # of pictures a batch and of threads: more is a typing error
_CONTROLS = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Runs the program, under the name that its help gives; returns its exit status."""
    options = _parse(arguments, prog)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with heeding_sigterm():
            return _recognize(options)
    except RobustScannerError as error:
        _report(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated:
        return TERMINATED
    except OSError as error:  # only standard output is left: files and pictures raise their own
        discard_stdout()
        if not isinstance(error, BrokenPipeError):  # the reader has had enough, as in `… | head`
            _report(f"standard output: {error.strerror or error}; write to a file with -o")
    return 1


def _parse(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_output_options(parser)
    _add_text_options(parser)
    _add_engine_options(parser)
    parser.set_defaults(write=_write_tsv)
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)  # intermixed parsing would read options after it too
    options = parser.parse_intermixed_args(given[:end])  # options may also stand between pictures
    options.images += given[end + 1 :]
    if contradiction := _contradiction(options):
        parser.error(contradiction)
    return options


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    """What to read, and where what was read goes."""
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help="picture, folder, or quoted pattern; - reads paths from stdin"
    )
    parser.add_argument("--engine", metavar="PATH", help="NAME.engine folder or NAME.onnx (default: the shipped model)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--json", dest="write", action="store_const", const=_write_json, help="JSON Lines: one object a line"
    )
    kind.add_argument("--csv", dest="write", action="store_const", const=_write_csv, help="CSV with a header")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there instead of to stdout")
    parser.add_argument("--sheet", type=_sheet_path, metavar="FILE", help="draw a contact sheet (.png, .jpg, .webp)")
    parser.add_argument("--letters", action="store_true", help="each letter: probability, place, what else it may be")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite existing files")
    words = parser.add_mutually_exclusive_group()
    words.add_argument("--detect", action="store_true", help="words of one photo, found by RapidOCR's detector")
    words.add_argument(
        "--boxes", type=Path, metavar="FILE", help="words of one photo: JSON list of [x, y, w, h] or of four points"
    )


def _add_text_options(parser: argparse.ArgumentParser) -> None:
    """Which texts are wanted."""
    may = parser.add_argument_group("what a text may be")
    may.add_argument("--characters", metavar="CLASS", help="as inside the brackets of a regular expression: 0-9A-F")
    may.add_argument("--pattern", metavar="REGEX", help="of the whole text, without looking back or ahead")
    may.add_argument("--words", type=Path, metavar="FILE", help="the best word of a list, one a line, as it is written")
    may.add_argument("--length", type=_lengths, metavar="N[-M]", help="number of characters, or fewest and most")
    parser.add_argument(
        "--min-score",
        type=number_between(0, 1, "a number from 0 to 1"),
        default=0.0,
        metavar="P",
        help="leave out readings with a lower score, 0…1",
    )


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    """How the engine runs."""
    parser.add_argument("--batch", type=_count, metavar="PICTURES", help="pictures of one run")
    parser.add_argument(
        "--threads", type=_count, metavar="N", help="CPU threads (default: all cores that are free to use)"
    )
    parser.add_argument("--device", type=int, default=0, metavar="N", help="GPU of a TensorRT engine (default: 0)")
    parser.add_argument(
        "--allow-host-code",
        action="store_true",
        help="run the code that a version-compatible TensorRT engine carries: only if you trust it",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say on stderr what runs, and how fast")
    parser.add_argument("--version", action="version", version=f"robustscanner {__version__}")


def _contradiction(options: argparse.Namespace) -> str | None:
    """What is missing from a command line, or does not go together."""
    if not options.images:
        return "the following arguments are required: IMAGE"
    if options.words and any(given is not None for given in (options.characters, options.pattern, options.length)):
        return "--words goes without --characters, --pattern and --length"
    if options.letters and options.write is _write_tsv and not options.sheet:
        return "--letters needs --json, --csv or --sheet to show them in"
    if options.output and options.output == options.sheet:
        return "--output and --sheet name the same file"
    return None


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {_MAX_COUNT}")
    return int(text)


def _lengths(text: str) -> tuple[int, int]:
    fewest, _, most = text.partition("-")
    if not fewest.isdecimal() or not (most or fewest).isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor two, such as 5-8")
    return int(fewest), int(most or fewest)


def _sheet_path(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither in .png nor in .jpg, .jpeg or .webp")
    return path


def _recognize(options: argparse.Namespace) -> int:
    paths, clean = _collect(options.images)
    if not paths:
        if clean:
            raise ImageError("standard input: lists no pictures; give one path a line")
        return 1
    if options.boxes or options.detect:
        return _recognize_photo(paths, options) if clean else 1
    if options.sheet:
        _check_sheet(options, len(paths))
    started = time.monotonic()
    with ExitStack() as stack:
        stream = stack.enter_context(_output(options))
        recognizer = stack.enter_context(_open_recognizer(options))
        work = _read_all(recognizer, paths, options.write(stream, letters=options.letters), options)
        if options.sheet and not work.terminated:
            _save_sheet(work.cells, options)
    logging.getLogger(__name__).info("%d pictures in %.2f s", work.done, time.monotonic() - started)
    if work.bad:
        print(f"{work.bad} of {work.done} pictures could not be read", file=sys.stderr)
    _report_unsure(work.unsure, work.done, options)
    if work.terminated:
        print(f"terminated after {work.done} of {len(paths)} pictures", file=sys.stderr)
        return TERMINATED
    return 0 if clean and not work.bad else 1


def _recognize_photo(paths: list[str], options: argparse.Namespace) -> int:
    from robustscanner.photo import detect_quads, draw_photo, load_quads, read_photo
    from robustscanner.preprocess import load_image

    if len(paths) != 1:
        raise ImageError(f"--boxes and --detect read the words of one photo, but {len(paths)} pictures are given")
    if options.sheet:
        check_output(options.sheet, force=options.force)
    picture = load_image(paths[0])
    quads = load_quads(options.boxes) if options.boxes else detect_quads(picture)
    with ExitStack() as stack:
        stream = stack.enter_context(_output(options))
        recognizer = stack.enter_context(_open_recognizer(options))
        words = read_photo(recognizer, picture, quads, letters=options.letters)
        sure = [word for word in words if word.reading.score >= options.min_score]
        write = options.write(stream, letters=options.letters)
        for word in sure:
            letters = None if word.letters is None else [letter.as_json() for letter in word.letters]
            write(paths[0], word.reading, letters, word.quad.tolist())
        if options.sheet:
            _save_picture(draw_photo(picture, sure), options)
    _report_unsure(len(words) - len(sure), len(words), options)
    return 0


def _report_unsure(count: int, total: int, options: argparse.Namespace) -> None:
    if count:
        print(f"{count} of {total} readings are left out: score below {options.min_score:g}", file=sys.stderr)


def _collect(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """All pictures in order, and whether every argument stood for some; those that did not are reported."""
    paths: list[str] = []
    clean = True
    for argument in arguments:
        if argument == "-":
            paths += read_list(os.fsdecode(line) for line in sys.stdin.buffer)
            continue
        try:
            paths += map(str, find_pictures(argument))
        except ImageError as error:
            _report(error)
            clean = False
    return paths, clean


def _open_recognizer(options: argparse.Namespace) -> "Recognizer":
    from robustscanner.constraint import Constraint
    from robustscanner.recognizer import DEFAULT_BATCH, Recognizer
    from robustscanner.session import GpuOptions, SessionOptions
    from robustscanner.words import WordList

    gpu = GpuOptions(device=options.device, host_code=options.allow_host_code)
    session = SessionOptions(threads=options.threads, gpu=gpu) if options.threads else SessionOptions(gpu=gpu)
    constraint: Constraint | WordList | None = None
    if options.words is not None:
        constraint = WordList(_read_words(options.words))
    elif any(given is not None for given in (options.characters, options.pattern, options.length)):
        constraint = Constraint(options.characters, options.pattern, options.length)
    batch = options.batch or DEFAULT_BATCH
    return Recognizer(options.engine, batch_size=batch, constraint=constraint, options=session)


def _read_words(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConstraintError(
            f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8'}; give one word a line"
        ) from None


@dataclass
class _Work:
    """What became of the pictures."""

    cells: "list[Cell]" = field(default_factory=list)  # of the sheet, if one is wanted
    done: int = 0
    bad: int = 0  # of them could not be read
    unsure: int = 0  # of them have a lower score than is wanted
    terminated: bool = False  # before the end


def _read_all(recognizer: "Recognizer", paths: list[str], write: "Write", options: argparse.Namespace) -> _Work:
    """Reads, writes and reports."""
    from robustscanner.letters import as_json
    from robustscanner.sheet import Cell

    progress = _Progress(len(paths), options)
    work = _Work()
    try:
        for path, result in recognizer.read_each(paths):
            letters = None
            if options.letters and not isinstance(result, ImageError):
                letters = recognizer.letters(path, result.text)
            with unbroken():
                if isinstance(result, ImageError):
                    work.bad += 1
                    progress.clear()
                    _report(result)
                elif result.score < options.min_score:
                    work.unsure += 1
                else:
                    write(str(path), result, None if letters is None else list(map(as_json, letters)))
                if options.sheet:
                    work.cells.append(Cell(str(path), result, letters or ()))
                work.done += 1
                progress.show(work.done)
    except Terminated:
        work.terminated = True
    progress.clear()
    return work


@contextmanager
def _output(options: argparse.Namespace) -> Iterator[TextIO]:
    if options.output is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with (
        replacing(options.output, force=options.force) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def _check_sheet(options: argparse.Namespace, count: int) -> None:
    from robustscanner.sheet import MAX_CELLS

    check_output(options.sheet, force=options.force)
    if count > MAX_CELLS:
        raise OutputError(f"{options.sheet}: {count} pictures, but a sheet holds {MAX_CELLS}; give fewer at once")


def _save_sheet(cells: "list[Cell]", options: argparse.Namespace) -> None:
    from robustscanner.sheet import draw_sheet

    _save_picture(draw_sheet(cells), options)


def _save_picture(picture: "Image", options: argparse.Namespace) -> None:
    from robustscanner.sheet import encode_sheet

    data = encode_sheet(picture, options.sheet.suffix.lower())
    with replacing(options.sheet, force=options.force) as temporary:
        temporary.write_bytes(data)


def _write_tsv(stream: TextIO, *, letters: bool) -> "Write":
    def write(path: str, reading: "Reading", letters: object = None, quad: object = None) -> None:
        fields = (path, reading.text, f"{reading.score:.4f}")
        print(*(field.translate(_CONTROLS) for field in fields), sep="\t", file=stream)

    return write


def _write_json(stream: TextIO, *, letters: bool) -> "Write":
    def write(path: str, reading: "Reading", letters: JsonLetters | None = None, quad: Quad | None = None) -> None:
        record: dict[str, object] = {
            "path": path,
            "text": reading.text,
            "score": round(reading.score, 4),
            **_beside(reading),
        }
        if letters is not None:
            record["letters"] = letters
        if quad is not None:
            record["quad"] = quad
        print(json.dumps(record, ensure_ascii=False), file=stream)

    return write


def _beside(reading: "Reading") -> dict[str, object]:
    """What there is to say besides, where a list of words was given."""
    from robustscanner.recognizer import WordReading

    if not isinstance(reading, WordReading):
        return {}
    free = reading.free
    return {"others": round(reading.others, 4), "free": free.text, "free_score": round(free.score, 4)}


def _write_csv(stream: TextIO, *, letters: bool) -> "Write":
    """Letters have a column of their own, as JSON."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "text", "score", *(["letters"] if letters else [])])

    def write(path: str, reading: "Reading", letters: JsonLetters | None = None, quad: object = None) -> None:
        row = [path, reading.text, f"{reading.score:.4f}"]
        if letters is not None:
            row.append(json.dumps(letters, ensure_ascii=False))
        writer.writerow(row)

    return write


class _Progress:
    """A line that rewrites itself while long work runs on a terminal; nothing elsewhere."""

    def __init__(self, total: int, options: argparse.Namespace) -> None:
        self._total = total
        mixed = options.output is None and sys.stdout.isatty()  # the readings themselves show the progress
        self._active = total > _PROGRESS_PICTURES and sys.stderr.isatty() and not mixed
        self._next = 0.0

    def show(self, done: int) -> None:
        if self._active and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PROGRESS_SECONDS
            print(f"\r{done} of {self._total} pictures", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._active:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _report(error: object) -> None:
    print(f"error: {str(error).translate(_CONTROLS)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
