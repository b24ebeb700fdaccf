"""Where training words come from: LMDBs, folders and the renderer, each drawn from with a weight of its own."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from robustscanner.charset import Charset
from robustscanner.labels import DataError, LabelledCrop, read_labels
from robustscanner.preprocess import Image
from robustscanner.spec import ModelSpec
from training.data.augment import AugmentOptions, augment
from training.data.crop_set import crop_set_kind, open_crop_set
from training.data.folder import FolderSet, HoldOut
from training.data.record import BadRecord, CropSet, Skipped, decode_record
from training.data.render.fonts import find_fonts, split_fonts
from training.data.render.synth import SynthOptions, WordSynthesizer

Word = tuple[Image, list[int]]  # a picture and the ids of its label

MIN_SIDE_PX = 4  # MJSynth holds slivers; nobody reads them, and they break filters
MAX_TRIES = 1000  # bad records in a row, after which a source counts as unusable


@dataclass(frozen=True)
class WordSource:
    """One source of training words."""

    kind: str  # "lmdb", "folder", or "render": words of a list, drawn without end
    path: Path
    weight: float = 1.0  # how often words come from here, in proportion to the other sources' weights

    def __post_init__(self) -> None:
        if self.kind not in ("lmdb", "folder", "render"):
            raise DataError(f"{self.path}: source of kind {self.kind!r}; known: lmdb, folder, render")
        if not 0 < self.weight < float("inf"):
            raise DataError(f"{self.path}: weight {self.weight}; give a positive number")

    @classmethod
    def parse(cls, text: str) -> "WordSource":
        """From `PATH` or `PATH=WEIGHT`; what lies there says of which kind it is.

        Raises:
            DataError: nothing usable lies there, or the weight is no positive number.
        """
        path, _, weight = text.rpartition("=")
        if not path or Path(text).exists():
            path, weight = text, "1"
        try:
            return cls(_kind(Path(path)), Path(path), float(weight))
        except ValueError:
            raise DataError(f"{text}: weight {weight!r} is no number; write PATH=WEIGHT") from None


def _kind(path: Path) -> str:
    if kind := crop_set_kind(path) or ("render" if path.is_file() else None):
        return kind
    raise DataError(f"{path}: no LMDB, no folder with labels.tsv and no word list; check the path")


class Drawer(Protocol):
    """Draws words of one source; the same generator state gives the same word."""

    name: str

    def draw(self, rng: np.random.Generator) -> Word:
        """Raises `BadRecord` when the record that chance chose cannot be used."""


class RenderedWords:
    """Draws words that nobody has photographed."""

    name = "render"

    def __init__(self, synthesizer: WordSynthesizer, charset: Charset) -> None:
        self._synthesizer, self._charset = synthesizer, charset

    def draw(self, rng: np.random.Generator) -> Word:
        """A rendered word; never a bad one."""
        image, text = self._synthesizer.sample(rng)
        return image, self._charset.encode(text)


class AugmentedCrops:
    """Draws crops of a set and varies them; `options` None leaves them as they are."""

    def __init__(
        self, crops: CropSet, charset: Charset, max_length: int, *, options: AugmentOptions | None = AugmentOptions()
    ) -> None:
        self.name, self._crops = str(crops.path), crops
        self._charset, self._max_length, self._options = charset, max_length, options
        if not len(crops):
            raise DataError(f"{self.name}: holds no crops; leave it out")

    def draw(self, rng: np.random.Generator) -> Word:
        """A crop, each as likely as the others."""
        index = int(rng.integers(len(self._crops)))
        text = self._crops.label(index)
        ids = encode_label(text, self._charset, self._max_length)
        if ids is None:
            raise BadRecord(_label_problem(self._charset.fit(text), self._charset, self._max_length))
        image = decode_record(self._crops.data(index))
        if min(image.shape[:2]) < MIN_SIDE_PX:
            raise BadRecord(f"picture: a side is under {MIN_SIDE_PX} pixels")
        return image if self._options is None else augment(image, rng, options=self._options), ids


def encode_label(text: str, charset: Charset, max_length: int) -> list[int] | None:
    """Ids of a label, fitted to the charset, or None if a character is unknown or it is empty or too long to decode."""
    text = charset.fit(text)
    return None if _label_problem(text, charset, max_length) else charset.encode(text)


def _label_problem(text: str, charset: Charset, max_length: int) -> str:
    """What is wrong with a label that was fitted to the charset; nothing if nothing is."""
    if not text:
        return "label is empty"
    if len(text) >= max_length:
        return "label is too long"
    missing = charset.missing(text)
    return f"label has {missing[0]!r} (U+{ord(missing[0]):04X}), which is outside the charset" if missing else ""


def draw_usable(drawer: Drawer, rng: np.random.Generator, skipped: Skipped) -> Word:
    """A word that can be used; records that cannot are counted.

    Raises:
        DataError: there are next to none.
    """
    reason = ""
    for _ in range(MAX_TRIES):
        try:
            return drawer.draw(rng)
        except BadRecord as error:
            reason = str(error)
            skipped[drawer.name, reason] += 1
    raise DataError(f"{drawer.name}: {MAX_TRIES} records in a row cannot be used, the last: {reason}; leave it out")


def open_sources(
    sources: Sequence[WordSource], spec: ModelSpec, *, held_out: HoldOut = HoldOut(0)
) -> list[tuple[Drawer, float]]:
    """Opens every source, without the held-out crops of folders, tries it, and pairs it with its weight.

    Raises:
        DataError: a source cannot be used, or there is none.
    """
    if not sources:
        raise DataError("no source of training words; name an LMDB, a folder with labels.tsv or a word list")
    drawers = [_open_source(source, spec, held_out) for source in sources]
    for drawer in drawers:  # here, where an error is one line, and not in a worker
        draw_usable(drawer, np.random.default_rng(0), Counter())
    return [(drawer, source.weight) for drawer, source in zip(drawers, sources, strict=True)]


def held_out_crops(sources: Sequence[WordSource], held_out: HoldOut) -> list[LabelledCrop]:
    """The crops of all folders that are for validation only, each once; LMDBs are trained on as a whole."""
    crops = [crop for source in sources if source.kind == "folder" for crop in read_labels(source.path)]
    return list(dict.fromkeys(crop for crop in crops if held_out.keeps(crop)))


def _open_source(source: WordSource, spec: ModelSpec, held_out: HoldOut) -> Drawer:
    charset, max_length = Charset(spec.charset), spec.network.max_length
    if source.kind == "render":
        options = SynthOptions(max_length=min(SynthOptions.max_length, max_length - 1))
        words = read_words(source.path)
        fonts, _ = split_fonts(find_fonts())
        synthesizer = WordSynthesizer(words, characters=charset.characters, fonts=fonts, options=options)
        return RenderedWords(synthesizer, charset)
    if source.kind == "lmdb":
        return AugmentedCrops(open_crop_set(source.path), charset, max_length)
    kept = [crop for crop in read_labels(source.path) if not held_out.keeps(crop)]
    return AugmentedCrops(FolderSet(source.path, kept), charset, max_length)


def read_words(path: Path) -> list[str]:
    """Words of a list, one a line; raises `DataError`."""
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path}: no readable word list; give a UTF-8 file with one word a line") from None
