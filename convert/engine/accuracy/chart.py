"""Draws what `sensitivity.py` found: damage of each layer alone, and what sparing it gains."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

_ROW_INCH = 0.27
_LEAST = 1e-9  # nats, of a layer that does nothing: a logarithmic axis has no zero


def draw(result: Mapping[str, Any]) -> Figure:
    """Layers from the most harmful down; a bar for each alone, a dot for all layers but it, a line for all."""
    rows = result["layers"][::-1]  # the first at the top
    figure = Figure(figsize=(4.6, 1.4 + _ROW_INCH * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))
    kept = set(result["least"]["float_layers"])
    colours = ["#c0392b" if row["layer"] in kept else "#2c6fbb" for row in rows]
    axes.barh(places, [max(_LEAST, row["alone"]["divergence"]) for row in rows], color=colours, label="alone in 8 bits")
    restored = [max(_LEAST, row["restored"]["divergence"]) for row in rows]
    axes.plot(restored, places, "o", color="#444444", markersize=4, label="all but this one")
    axes.axvline(max(_LEAST, result["all_int8"]["divergence"]), color="#444444", linewidth=1, label="all in 8 bits")
    axes.set_xscale("log")
    axes.set_xlabel("divergence from FP32, nats a character")
    axes.set_yticks(places, [short_name(row["layer"]) for row in rows], fontsize=9)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{result['model']}: INT8 damage by layer"
    figure.legend(fontsize=9, loc="outside upper left", ncols=3, frameon=False, columnspacing=1, title=title)
    return figure


def short_name(layer: str) -> str:
    """A node's name without repetition: `layers.3/conv1` of `/backbone/layers/layers.3/conv1/Conv`."""
    parts = layer.removeprefix("/backbone").removesuffix("/Conv").strip("/").split("/")
    kept = [part for part, following in pairwise(parts) if not following.startswith(part)]
    return "/".join([*kept, parts[-1]])
