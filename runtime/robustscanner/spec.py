"""What a model is: frozen dataclasses that travel as JSON with every checkpoint, ONNX file and engine."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args, get_origin

from robustscanner.errors import SpecError, shown

FORMAT = 1  # of the JSON; raised when an older reader would misread a newer file
# Spec and history (a JSON list of the steps so far) lie under these names in the metadata of checkpoints and ONNX.
SPEC_KEY = "robustscanner.spec"
HISTORY_KEY = "robustscanner.history"
# Of a model that was trained with rounding: JSON, name of a tensor in the graph -> [lowest, highest value].
RANGES_KEY = "robustscanner.activation_ranges"
# Fields that the first files of this format lack; their defaults say what was so then.
ADDED = {"width_rule", "canvas_step_px", "canvas_margin_px", "row_mixer", "blocks", "ctc_weight", "score_temperature"}

# PaddleOCR's dict90 in its order; MMOCR's DICT90 is the same. No space, no ^ { | }.
DICT90 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!\"#$%&'()*+,-./:;<=>?@[\\]_`~"


@dataclass(frozen=True)
class CharsetSpec:
    """Token ids and what they stand for. Frameworks order the special tokens differently, so all of it is data."""

    tokens: tuple[str, ...]  # one entry per id (and embedding row), special tokens included
    start_id: int  # fed to the decoder before the first character
    end_id: int  # ends a word; often the same id as start_id
    pad_id: int  # fills labels after the end; never part of a text
    unknown_id: int | None  # stands for a character outside the charset, if the model has such a token
    class_count: int  # the classifier emits ids 0 … class_count - 1

    def __post_init__(self) -> None:
        count = len(self.tokens)
        # A space may: PaddleOCR's use_space_char appends one to dictionaries that hold it already (en_dict.txt).
        repeated = sorted({token for token in self.tokens if token != " " and self.tokens.count(token) > 1})
        if repeated:
            raise SpecError(f"charset: {shown(repeated[0])} appears more than once; every token needs one id")
        for name in ("start_id", "end_id", "pad_id", "unknown_id"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < count:
                raise SpecError(f"charset: {name} {value} is outside the {count} tokens")
        if not self.end_id < self.class_count <= count:
            raise SpecError(f"charset: class_count {self.class_count} must be in {self.end_id + 1}…{count}")
        long = [token for id_, token in enumerate(self.tokens) if len(token) != 1 and id_ not in self.special_ids]
        if long:
            raise SpecError(f"charset: {shown(long[0])} is not a single character and not a special token")

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that are no character."""
        return frozenset(i for i in (self.start_id, self.end_id, self.pad_id, self.unknown_id) if i is not None)

    @classmethod
    def of(cls, characters: str) -> "CharsetSpec":
        """PaddleOCR's layout for any alphabet: characters, then <UKN>, <BOS/EOS>, <PAD>; <PAD> is never emitted."""
        count = len(characters)
        tokens = (*characters, "<UKN>", "<BOS/EOS>", "<PAD>")
        return cls(
            tokens, start_id=count + 1, end_id=count + 1, pad_id=count + 2, unknown_id=count, class_count=count + 2
        )


@dataclass(frozen=True)
class InputSpec:
    """The canvas a word is drawn on, and how the graph turns its pixels into numbers."""

    height_px: int = 48
    width_px: int = 160  # longer words are squeezed into it
    min_width_px: int = 48  # narrower words are stretched to it
    width_multiple_px: int = 4  # the resized width is rounded to it: one feature column is 4 pixels
    # "ratio": ceil(height * (w / h)) as PaddleOCR and OpenOCR, "scale": ceil((height / h) * w) as MMOCR. They differ
    # only where a rounding error lifts a whole number: at one of all sizes up to 200 x 800.
    width_rule: str = "ratio"
    resize: str = "linear"  # "linear" as PaddleOCR and MMOCR do, or "area": averages when it shrinks, so no aliasing
    mean: float = 127.5  # the graph computes (pixel - mean) / scale
    scale: float = 127.5
    # 0: every canvas is width_px wide. Otherwise a word's canvas is only as wide as the word and a margin after it,
    # rounded up to a multiple of the step, so that short words cost less. It depends on the word alone.
    canvas_step_px: int = 0
    canvas_margin_px: int = 0

    def __post_init__(self) -> None:
        if self.resize not in ("linear", "area"):
            raise SpecError(f"input: resize {shown(self.resize)} is neither linear nor area")
        if self.width_rule not in ("ratio", "scale"):
            raise SpecError(f"input: width_rule {shown(self.width_rule)} is neither ratio nor scale")
        if not 0 < self.width_multiple_px <= self.min_width_px <= self.width_px or self.height_px < 1:
            raise SpecError("input: needs 0 < width_multiple_px <= min_width_px <= width_px and a positive height_px")
        if self.width_px % self.width_multiple_px or self.min_width_px % self.width_multiple_px:
            raise SpecError("input: width_px and min_width_px must be multiples of width_multiple_px")
        if not self.scale > 0:
            raise SpecError(f"input: scale {shown(self.scale)} must be positive")
        if self.canvas_step_px < 0 or self.canvas_margin_px < 0:
            raise SpecError("input: canvas_step_px and canvas_margin_px must not be negative")
        if self.canvas_step_px and (
            self.canvas_step_px % self.width_multiple_px or self.width_px % self.canvas_step_px
        ):
            raise SpecError("input: canvas_step_px must be a multiple of width_multiple_px and divide width_px")

    @property
    def canvas_widths(self) -> tuple[int, ...]:
        """All widths in pixels that canvases can have, narrowest first."""
        if not self.canvas_step_px:
            return (self.width_px,)
        return tuple(range(self.canvas_width(self.min_width_px), self.width_px + 1, self.canvas_step_px))

    def canvas_width(self, valid_width: int) -> int:
        """Width in pixels of the canvas for a word that is `valid_width` pixels wide on it."""
        step = self.canvas_step_px
        return min(self.width_px, -(-(valid_width + self.canvas_margin_px) // step) * step) if step else self.width_px


@dataclass(frozen=True)
class NetworkSpec:
    """Which RobustScanner: the paper's or a small one."""

    # "r31": ResNet31 of the paper, "edge": light, shrinks the picture early, "small": PP-OCRv6 small's visual encoder
    backbone: str = "r31"
    hidden_size: int = 128  # of keys, queries, embeddings and LSTM states
    max_length: int = 40  # decoding steps T, the end token included
    widths: tuple[int, ...] = ()  # channels of edge's four stages at 1/2, 1/4, 1/8 and 1/16 height; () = its own
    blocks: tuple[int, ...] = ()  # in small's three stages; () = its own
    row_mixer: str = "lstm"  # of the position branch: "lstm", the paper's, or "conv": dilated, no column waits
    # Share of CTC in the choice of every character (arXiv:1609.06773): 0 = attention alone, as published.
    ctc_weight: float = 0.0
    # A word's score is the product of its probabilities to the power of 1 / this; benchmarks/reliability.py fits it.
    score_temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.backbone not in ("r31", "edge", "small"):
            raise SpecError(f"network: backbone {shown(self.backbone)} is none of r31, edge and small")
        if self.widths and (self.backbone != "edge" or len(self.widths) != 4):
            raise SpecError("network: widths are four channel counts, and of the edge backbone only")
        if self.blocks and (self.backbone != "small" or len(self.blocks) != 3 or min(self.blocks) < 1):
            raise SpecError("network: blocks are three counts of 1 or more, and of the small backbone only")
        if self.row_mixer not in ("lstm", "conv"):
            raise SpecError(f"network: row_mixer {shown(self.row_mixer)} is neither lstm nor conv")
        if not 0 <= self.ctc_weight <= 1:
            raise SpecError(f"network: ctc_weight {shown(self.ctc_weight)} is not within 0 and 1")
        if not self.score_temperature > 0:
            raise SpecError(f"network: score_temperature {shown(self.score_temperature)} must be positive")
        if self.hidden_size < 1 or self.max_length < 1:
            raise SpecError("network: hidden_size and max_length must be positive")


@dataclass(frozen=True)
class ModelSpec:
    """Everything that is needed to rebuild a model around its weights, and to call it."""

    name: str
    charset: CharsetSpec = field(default_factory=lambda: CharsetSpec.of(DICT90))
    input: InputSpec = InputSpec()
    network: NetworkSpec = NetworkSpec()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the inverse of `from_dict`."""
        return {"format": FORMAT, **asdict(self)}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ModelSpec":
        """Raises `SpecError` naming what is missing, unknown, or contradictory."""
        if not isinstance(data, Mapping):
            raise SpecError("spec: not a JSON object")
        if data.get("format") != FORMAT:
            found = shown(data.get("format"))
            raise SpecError(f"spec: format {found}; this version reads format {FORMAT}: update the kit")
        parts = {key: value for key, value in data.items() if key != "format"}
        for key, kind in (("charset", CharsetSpec), ("input", InputSpec), ("network", NetworkSpec)):
            parts[key] = _build(kind, parts.get(key), key)
        spec: ModelSpec = _build(cls, parts, "spec")
        return spec

    @classmethod
    def from_json(cls, text: str) -> "ModelSpec":
        """Raises `SpecError` when the text is no spec."""
        try:
            return cls.from_dict(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            raise SpecError(f"spec: not JSON ({error})") from None


def to_metadata(
    spec: ModelSpec, history: Sequence[Mapping[str, Any]], *, ranges: Mapping[str, tuple[float, float]] | None = None
) -> dict[str, str]:
    """What a checkpoint or ONNX file holds besides weights; ranges, if it was trained to be rounded within some."""
    entries = {SPEC_KEY: spec.to_json(), HISTORY_KEY: json.dumps(list(history))}
    return entries | ({RANGES_KEY: json.dumps(dict(ranges))} if ranges else {})


def trained_ranges(entries: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """The ranges among those entries, by tensor name; {} of a model that was not trained with rounding."""
    return {name: (low, high) for name, (low, high) in json.loads(entries.get(RANGES_KEY, "{}")).items()}


def _build(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise SpecError(f"{where}: missing or not a JSON object")
    kinds = {f.name: f.type for f in fields(kind)}
    missing, unknown = set(kinds) - set(data) - ADDED, set(data) - set(kinds)
    if missing or unknown:
        raise SpecError(f"{where}: missing {shown(sorted(missing))}, unknown {shown(sorted(unknown))}")
    for key, value in data.items():
        if not _is_a(value, kinds[key]):
            raise SpecError(f"{where}: {key} is {shown(value)}, which is not of the kind this field takes")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a JSON value fits a field's type: a list is a tuple, an int will do as a float, a bool is no int."""
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_is_a(item, get_args(kind)[0]) for item in value)
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)
