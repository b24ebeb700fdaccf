"""How PaddleOCR, MMOCR and OpenOCR name, lay out and number the parts of a RobustScanner."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from robustscanner.errors import SpecError
from robustscanner.spec import DICT90, CharsetSpec, InputSpec, ModelSpec, NetworkSpec

from .dictionary import DICT36, DICT94
from .safe_pickle import Weight

Shapes = Mapping[str, tuple[int, ...]]

logger = logging.getLogger(__name__)

# Keys under which checkpoints keep the weights that their own project loads. Those of an EMA come last: MMEngine, for
# one, stores the averaged weights as `state_dict` and the raw ones as `ema_state_dict`.
_WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params"),
    *("ema_state_dict", "state_dict_ema", "model_ema", "ema"),
)
# What is put before every name by DataParallel and EMA of PyTorch, DataParallel of Paddle, Lightning, torch.compile.
_PARALLEL = ("module.", "_layers.", "model.", "_orig_mod.")
_CELL = re.compile(r"\.(\d)\.cell\.(weight|bias)_(ih|hh)$")  # Paddle's second name of each LSTM tensor
COUNTER = "num_batches_tracked"  # of BN; means nothing when reading, and Paddle has none
_SHOWN = 3  # names of a kind in an error


@dataclass(frozen=True)
class ForeignLayout:
    """One project's checkpoints; whatever is not said here is as in ours."""

    project: str  # as --from spells it
    title: str
    backbone: str  # prefixes, and what follows them
    encoder: str
    decoder: str
    fusion: str  # in the decoder
    input: InputSpec
    charset: Callable[[Sequence[str]], CharsetSpec]  # numbers the characters and special tokens
    alphabets: tuple[str, ...]  # published with it, no two alike in size
    paddle: bool = False  # linear layers are [in, out], BN statistics have other names

    def foreign_name(self, name: str) -> str:
        """Their name of one of our parameters."""
        if self.paddle:
            name = name.replace(".running_mean", "._mean").replace(".running_var", "._variance")
        for ours, theirs in self._prefixes():
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        raise KeyError(name)

    def turned(self, name: str) -> bool:
        """Whether our parameter is stored transposed. The fusion layer is square: no shape check would notice."""
        return self.paddle and name in ("decoder.fusion.weight", "decoder.prediction.weight")

    def _prefixes(self) -> list[tuple[str, str]]:
        return [
            ("backbone.", self.backbone),
            ("encoder.", self.encoder),
            ("decoder.embedding.", f"{self.decoder}hybrid_decoder.embedding."),
            ("decoder.rnn.", f"{self.decoder}hybrid_decoder.sequence_layer."),
            ("decoder.position.embedding.", f"{self.decoder}position_decoder.embedding."),
            ("decoder.position.position_aware.", f"{self.decoder}position_decoder.position_aware_module."),
            ("decoder.fusion.", f"{self.decoder}{self.fusion}"),
            ("decoder.prediction.", f"{self.decoder}prediction."),
        ]


def _ids_of_paddleocr(characters: Sequence[str]) -> CharsetSpec:
    """MMOCR 0.x has the same.

    PaddleOCR's settings `start_idx` and `padding_idx` are wrong for other dictionaries unless a user changes them. Its
    label encoder is always right, and the weights have learnt from that.
    """
    n = len(characters)
    return CharsetSpec((*characters, "<UKN>", "<BOS/EOS>", "<PAD>"), n + 1, n + 1, n + 2, n, class_count=n + 2)


def _ids_of_mmocr_1x(characters: Sequence[str]) -> CharsetSpec:
    """Its classifier may even say <PAD>."""
    n = len(characters)
    return CharsetSpec((*characters, "<BOS/EOS>", "<PAD>", "<UKN>"), n, n, n + 1, n + 2, class_count=n + 3)


def _ids_of_openocr(characters: Sequence[str]) -> CharsetSpec:
    n = len(characters)
    return CharsetSpec(("</s>", *characters, "<s>", "<pad>"), n + 1, 0, n + 2, None, class_count=n + 3)


LAYOUTS = (
    ForeignLayout(
        project="paddleocr",
        title="PaddleOCR",
        backbone="backbone.",
        encoder="head.encoder.layer.",
        decoder="head.decoder.",
        fusion="fusion_module.linear_layer.",
        input=InputSpec(),
        charset=_ids_of_paddleocr,
        alphabets=(DICT90, DICT36),
        paddle=True,
    ),
    ForeignLayout(
        project="mmocr",
        title="MMOCR 0.x",
        backbone="backbone.",
        encoder="encoder.layer.",
        decoder="decoder.",
        fusion="fusion_module.linear_layer.",
        input=InputSpec(width_rule="scale"),
        charset=_ids_of_paddleocr,
        alphabets=(DICT90, DICT36),
    ),
    ForeignLayout(
        project="mmocr",
        title="MMOCR 1.x",
        backbone="backbone.",
        encoder="encoder.layer.",
        decoder="decoder.",
        fusion="linear_layer.",
        input=InputSpec(width_rule="scale", mean=127, scale=127),
        charset=_ids_of_mmocr_1x,
        alphabets=(DICT90, DICT36),
    ),
    ForeignLayout(
        project="openocr",
        title="OpenOCR",
        backbone="encoder.",
        encoder="decoder.encoder.layer.",
        decoder="decoder.decoder.",
        fusion="fusion_module.linear_layer.",
        input=InputSpec(),
        charset=_ids_of_openocr,
        alphabets=(DICT94, DICT36),
    ),
)
PROJECTS = tuple(dict.fromkeys(layout.project for layout in LAYOUTS))


def find_state(tree: object) -> tuple[dict[str, Any], str]:
    """The weights by name, without what parallel training puts before the names, and the key they were under.

    Raises:
        SpecError: the file holds no arrays by name.
    """
    where = ""
    while isinstance(tree, dict) and (key := next((k for k in _WRAPPERS if isinstance(tree.get(k), dict)), None)):
        tree, where = tree[key], key
    if not isinstance(tree, dict):
        raise SpecError(f"holds a {type(tree).__name__.strip('_').lower()}, not weights by name; not a RobustScanner")
    state = {name: value for name, value in tree.items() if isinstance(name, str) and _is_weight(value)}
    if not state:
        raise SpecError("holds no weights; give the checkpoint of the training, not its optimiser's or its log")
    while prefix := next((p for p in _PARALLEL if _is_before_all(p, state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return _without_aliases(state), where


def recognise(names: Iterable[str], ours: Iterable[str], project: str | None) -> ForeignLayout:
    """The layout that most of the names after the backbone belong to.

    Raises:
        SpecError: no layout has half of them, or not that of the project asked for.
    """
    # Others, such as SAR, have the same backbone.
    names, ours = set(names), [name for name in ours if not name.startswith("backbone.")]
    shares = {layout.title: sum(layout.foreign_name(name) in names for name in ours) for layout in LAYOUTS}
    best = max(LAYOUTS, key=lambda layout: shares[layout.title])
    if 2 * shares[best.title] < len(ours):
        share, sample = f"{shares[best.title]} of the {len(ours)} names", ", ".join(sorted(names)[:_SHOWN])
        raise SpecError(f"not a RobustScanner: {share} of its decoder are among these {len(names)} ({sample}, …)")
    if project not in (None, best.project):
        raise SpecError(f"has the names of {best.title}, not of --from {project}; leave out --from")
    return best


def check_names(names: Iterable[str], layout: ForeignLayout, ours: Iterable[str]) -> None:
    """Raises `SpecError` listing names that are missing or left over, other than those of a head of its own (CTC)."""
    expected, found = {layout.foreign_name(name) for name in ours}, set(names)
    missing = sorted(expected - found)
    left_over = sorted(name for name in found - expected if not name.endswith(COUNTER))
    if not missing:
        parts = {name.split(".")[0] for name in expected}
        for name in [name for name in left_over if name.split(".")[0] not in parts]:
            logger.warning("left out: %s, which is no part of %s's RobustScanner", name, layout.title)
            left_over.remove(name)
    for index, name in enumerate(left_over[:_SHOWN]):
        nearest = get_close_matches(name, missing or expected, 1)
        left_over[index] = f"{name} (nearest: {nearest[0]})" if nearest else name
    _report(layout, [("missing", missing), ("left over", left_over)])


def check_shapes(state: Mapping[str, Any], layout: ForeignLayout, ours: Shapes) -> None:
    """Raises `SpecError` listing shapes that do not fit."""
    misfits = []
    for name, shape in ours.items():
        foreign = layout.foreign_name(name)
        expected = shape[::-1] if layout.turned(name) else shape
        if foreign in state and tuple(state[foreign].shape) != expected:
            misfits.append(f"{foreign} is {_size(state[foreign].shape)} instead of {_size(expected)}")
    _report(layout, [("of another shape", misfits)])


def count_characters(state: Mapping[str, Any], layout: ForeignLayout) -> int:
    """How many characters the embedding has rows for; raises `SpecError` where it is none."""
    return _matrix(state, layout, "decoder.embedding.weight")[0] - len(layout.charset("").tokens)


def describe(state: Mapping[str, Any], layout: ForeignLayout, name: str, characters: Sequence[str]) -> ModelSpec:
    """The model, as far as the sizes of its arrays tell; raises `SpecError` where they contradict."""
    _, hidden_size = _matrix(state, layout, "decoder.embedding.weight")
    position_count, _ = _matrix(state, layout, "decoder.position.embedding.weight")
    network = NetworkSpec("r31", hidden_size, max_length=position_count - 1)  # its last row is never used
    return ModelSpec(name, layout.charset(characters), layout.input, network)


def to_ours(name: str, array: npt.NDArray[Any], layout: ForeignLayout) -> npt.NDArray[np.float32]:
    """One of their arrays as our parameter.

    Raises:
        SpecError: NaN or infinity.
    """
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise SpecError(f"{layout.foreign_name(name)} holds NaN or infinity; take an earlier checkpoint")
    if layout.turned(name):
        array = array.T
    if name == "backbone.conv1_1.weight":  # they read BGR, our graph RGB
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _matrix(state: Mapping[str, Any], layout: ForeignLayout, name: str) -> tuple[int, int]:
    foreign = layout.foreign_name(name)
    shape = tuple(state[foreign].shape)
    if len(shape) != 2:
        _report(layout, [("of another shape", [f"{foreign} is {_size(shape)} instead of a matrix"])])
    return shape[0], shape[1]


def _is_before_all(prefix: str, state: Mapping[str, Any]) -> bool:
    """Whether all names have it, but for counters that averaging keeps beside the model (`n_averaged`, `steps`)."""
    others = [value for name, value in state.items() if not name.startswith(prefix)]
    return len(others) < len(state) and all(tuple(value.shape) in ((), (1,)) for value in others)


def _is_weight(value: object) -> bool:
    return isinstance(value, Weight | np.ndarray)


def _without_aliases(state: dict[str, Any]) -> dict[str, Any]:
    """Paddle stores LSTM tensors under two names; either will do."""
    renamed = {_CELL.sub(r".\2_\3_l\1", name): value for name, value in state.items() if _CELL.search(name)}
    return renamed | {name: value for name, value in state.items() if not _CELL.search(name)}


def _report(layout: ForeignLayout, kinds: list[tuple[str, list[str]]]) -> None:
    parts = []
    for kind, names in kinds:
        if names:
            more = ", …" if len(names) > _SHOWN else ""
            parts.append(f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}")
    if parts:
        raise SpecError(f"does not fit {layout.title}'s RobustScanner; {'; '.join(parts)}")


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape) or "a single number"
