"""Starts a model from another one's weights, even if it reads other characters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustscanner.errors import SpecError
from robustscanner.spec import CharsetSpec, ModelSpec
from training.checkpoint import load_checkpoint
from training.model.robustscanner import RobustScanner


@dataclass(frozen=True)
class Inherited:
    """What a model took over."""

    source: Path
    kept: str  # characters whose rows were copied
    fresh: str  # characters that the source did not know
    dropped: str  # characters that the model no longer reads
    history: list[dict[str, Any]]  # of the source
    mixes_anew: bool  # rows of the feature map are mixed in another way than the source's

    def __str__(self) -> str:
        lines = [f"{self.source.name}: keeps {len(self.kept)} characters and all weights that depend on none"]
        lines += [f"{len(self.fresh)} are new: {self.fresh}"] if self.fresh else []
        lines += [f"forgets {len(self.dropped)}: {self.dropped}"] if self.dropped else []
        lines += ["its row mixer starts anew"] if self.mixes_anew else []
        return "; ".join(lines)


def inherit(model: RobustScanner, path: Path) -> Inherited:
    """Copies a checkpoint's weights into a model; rows of characters that the checkpoint lacks stay as they are.

    Raises:
        SpecError: not a checkpoint, or a network of other dimensions.
    """
    source, history = load_checkpoint(path)
    _check_alike(source.spec, model.spec, path)
    old, new = source.spec.charset, model.spec.charset
    rows = _matching_rows(old, new)
    classes = [(i, j) for i, j in rows if i < new.class_count and j < old.class_count]
    weights, anew = source.state_dict(), _starting_anew(source.spec, model.spec)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith(anew):
                continue
            if name == "decoder.embedding.weight":
                _copy_rows(tensor, weights[name], rows)
            elif name.startswith("decoder.prediction."):
                _copy_rows(tensor, weights[name], classes)
            elif name.startswith("ctc_head."):
                if name in weights:  # of a model in which CTC has no say, it starts anew
                    _copy_rows(tensor, weights[name], [*classes, (-1, -1)])  # the blank is last
            elif name == "decoder.position.embedding.weight":
                length = min(len(tensor), len(weights[name]))  # where the longer model reads on, it learns it
                tensor[:length] = weights[name][:length]
            else:
                tensor.copy_(weights[name])
    before, after = _characters(old), _characters(new)
    return Inherited(
        path,
        kept="".join(c for c in after if c in before),
        fresh="".join(c for c in after if c not in before),
        dropped="".join(c for c in before if c not in after),
        history=history,
        mixes_anew=bool(anew),
    )


def _check_alike(old: ModelSpec, new: ModelSpec, path: Path) -> None:
    keys = {
        "network": ("backbone", "hidden_size", "widths", "blocks"),
        "input": ("resize", "height_px", "mean", "scale"),
    }
    for part, key in [(part, key) for part, names in keys.items() for key in names]:
        has, wanted = getattr(getattr(old, part), key), getattr(getattr(new, part), key)
        if has != wanted:
            raise SpecError(f"{path}: its {key} is {has!r}, the settings say {wanted!r}; use the same")


def _starting_anew(old: ModelSpec, new: ModelSpec) -> tuple[str, ...]:
    """Beginnings of the names of weights that the other model has nothing for."""
    return () if old.network.row_mixer == new.network.row_mixer else ("decoder.position.position_aware.rnn.",)


def _copy_rows(target: Tensor, source: Tensor, rows: list[tuple[int, int]]) -> None:
    for i, j in rows:
        target[i] = source[j]


def _matching_rows(old: CharsetSpec, new: CharsetSpec) -> list[tuple[int, int]]:
    """Ids of the new charset and the same token's in the old one: characters by name, special tokens by their part."""
    known = {token: j for j, token in enumerate(old.tokens) if j not in old.special_ids}
    rows = [(i, known[t]) for i, t in enumerate(new.tokens) if i not in new.special_ids and t in known]
    for part in ("start_id", "end_id", "pad_id", "unknown_id"):
        i, j = getattr(new, part), getattr(old, part)
        if i is not None and j is not None:
            rows.append((i, j))
    return rows


def _characters(charset: CharsetSpec) -> str:
    return "".join(token for id_, token in enumerate(charset.tokens) if id_ not in charset.special_ids)
