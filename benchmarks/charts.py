"""Draws results. As wide as a phone, so that nothing has to be enlarged there."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

_SIZE_INCH = (5.0, 3.5)
_HALF_LEGEND = 26  # characters that fit into half the width
_COLOURS = ("#2c6fbb", "#c0392b", "#2e8b57", "#8e5ea2", "#d9822b", "#5f6a72", "#17a2b8", "#a0522d")
_STAGE_COLOURS = dict(
    zip(("decode picture", "preprocess", "encoder", "decoding steps", "text", "engine"), _COLOURS, strict=False)
)

_RATES = ("accuracy", "low", "high")

Rows = Mapping[str, Mapping[str, Any]]  # engine or peer -> its figures


def to_svg(figure: Figure) -> str:
    """The same text for the same figure: no date, no chance."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "robustscanner"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def latency_against_accuracy(readers: Rows) -> Figure:
    """One dot a contestant: better is left and up; the bar is the mean interval of its sets."""
    figure, axes = _start("milliseconds a word (median)", "words right, percent")
    for colour, (name, row) in zip(_endless(len(readers)), readers.items(), strict=True):
        mean = {key: 100 * sum(s[key] for s in row["sets"].values()) / len(row["sets"]) for key in _RATES}
        errors = [[mean["accuracy"] - mean["low"]], [mean["high"] - mean["accuracy"]]]
        axes.errorbar(row["latency_ms"]["p50"], mean["accuracy"], yerr=errors, fmt="o", color=colour, label=name)
    axes.set_xscale("log")
    _plain_ticks(axes.xaxis)
    return _finish(figure, axes)


def cost_by_length(engines: Rows) -> Figure:
    """Median time of a word by the number of characters read, and the line through it."""
    figure, axes = _start("characters", "milliseconds a word (median)")
    for colour, (name, row) in zip(_endless(len(engines)), engines.items(), strict=True):
        lengths = [int(length) for length in row["by_length"]]
        line, label = row["length_line"], name
        if line:
            label += f": {line['character_ms']:+.2f} ms a character"
            ends = [min(lengths), max(lengths)]
            axes.plot(ends, [line["start_ms"] + n * line["character_ms"] for n in ends], color=colour)
        times = [point["p50"] for point in row["by_length"].values()]
        axes.plot(lengths, times, "o", color=colour, markersize=4, label=label)
    axes.set_yscale("log")
    _plain_ticks(axes.yaxis)
    return _finish(figure, axes)


def batch_curve(engines: Rows) -> Figure:
    """Words a second by batch size."""
    figure, axes = _start("words at once", "words a second")
    for colour, (name, row) in zip(_endless(len(engines)), engines.items(), strict=True):
        sizes = [int(size) for size in row["batches"]]
        rates = [batch["words_per_s"] for batch in row["batches"].values()]
        axes.plot(sizes, rates, "o-", color=colour, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _plain_ticks(axes.xaxis, base=2)
    _plain_ticks(axes.yaxis)
    return _finish(figure, axes)


def stage_breakdown(engines: Rows) -> Figure:
    """Shares of one word's time, a bar an engine, its milliseconds at the end."""
    figure = Figure(figsize=(_SIZE_INCH[0], 1.3 + 0.4 * len(engines)), layout="constrained")
    axes = figure.add_subplot()
    names = list(engines)[::-1]  # the first at the top
    starts = [0.0] * len(names)
    totals = [sum(engines[name]["stages"]["milliseconds"].values()) for name in names]
    for stage, colour in _STAGE_COLOURS.items():
        parts = [engines[name]["stages"]["milliseconds"].get(stage, 0.0) for name in names]
        shares = [100 * part / total for part, total in zip(parts, totals, strict=True)]
        if any(parts):
            axes.barh(names, shares, left=starts, color=colour, label=stage)
        starts = [start + share for start, share in zip(starts, shares, strict=True)]
    for place, total in enumerate(totals):
        axes.text(101, place, f"{total:.1f} ms", va="center", fontsize=8)
    axes.set_xlim(0, 118)
    axes.set_xlabel("percent of a word's time")
    axes.tick_params(axis="y", labelsize=8)
    figure.legend(fontsize=8, loc="outside upper center", ncols=3)
    return figure


def _start(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCH, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _finish(figure: Figure, axes: Axes) -> Figure:
    """With the legend above, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= _HALF_LEGEND else 1
    figure.legend(handles, labels, fontsize=8, loc="outside upper left", ncols=columns)
    return figure


def _plain_ticks(axis: Axis, *, base: int = 10) -> None:
    """1, 2, 5, 10 … on a logarithmic axis instead of powers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_locator(LogLocator(base=base, subs=(1, 2, 5) if base == 10 else (1,)))


def _endless(count: int) -> Sequence[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]
