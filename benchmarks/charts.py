"""Draws results. As wide as a phone, so that nothing has to be enlarged there."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

_SIZE_INCH = (4.4, 3.2)
_HALF_LEGEND = 24  # characters that fit into half the width
_LABEL_GAP = 0.085  # of an axis' height, between the middles of two lines of text
_NEAR = 1.6  # times as long: names beside such dots stand in one column
_LEAST_WORDS = 5  # of a bin of the reliability diagram: fewer say nothing
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
    figure, axes = _start("milliseconds a word (median)", f"words right, percent{_mean_of(readers)}")
    names, times = list(readers), [row["latency_ms"]["p50"] for row in readers.values()]
    means = {key: [_mean(row["sets"], key) for row in readers.values()] for key in _RATES}
    for place, colour in enumerate(_endless(len(names))):
        middle, low, high = (means[key][place] for key in _RATES)
        errors = [[middle - low], [high - middle]]
        axes.errorbar(times[place], middle, yerr=errors, fmt="o", color=colour, elinewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(times) / 1.4, 1.4 * max(times))
    _plain_ticks(axes.xaxis)
    _name_dots(axes, names, times, means["accuracy"])
    return figure


def reliability_diagram(engines: Rows) -> Figure:
    """Share of right readings by score, every set of every engine; on the diagonal, scores are what they say."""
    figure, axes = _start("score", "readings that are right")
    lines = [(f"{name}, {folder}", row) for name, engine in engines.items() for folder, row in engine["sets"].items()]
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
    for colour, (label, row) in zip(_endless(len(lines)), lines, strict=True):
        bins = [bin_ for bin_ in row["diagram"] if bin_[0] >= _LEAST_WORDS]
        axes.plot([bin_[1] for bin_ in bins], [bin_[2] for bin_ in bins], "o-", color=colour, markersize=3, label=label)
    return _finish(figure, axes)


def load_curve(rates: Sequence[Mapping[str, Any]], ways: Sequence[str]) -> Figure:
    """Latency over what was answered a second: a server's wall is where its line turns up."""
    figure, axes = _start("words answered a second", "milliseconds a word (solid: median, dotted: 99 of 100)")
    for colour, way in zip(_endless(len(ways)), ways, strict=True):
        answered = [row[way]["words_per_s"] for row in rates]
        axes.plot(answered, [row[way]["p50_ms"] for row in rates], "o-", color=colour, markersize=3, label=way)
        axes.plot(answered, [row[way]["p99_ms"] for row in rates], ":", color=colour)
    axes.set_yscale("log")
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
        axes.text(101, place, f"{total:.1f} ms", va="center", fontsize=9)
    axes.set_xlim(0, 122)
    axes.set_xticks(range(0, 101, 25))
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_xlabel("percent of a word's time")
    axes.tick_params(axis="y", labelsize=9)
    figure.legend(fontsize=9, loc="outside upper left", ncols=3, frameon=False)
    return figure


def _mean(sets: Rows, key: str) -> float:
    return 100 * float(sum(row[key] for row in sets.values())) / len(sets)


def _mean_of(readers: Rows) -> str:
    sets = list(next(iter(readers.values()))["sets"])
    return f"\nmean of {', '.join(sets)}" if len(sets) > 1 else f" of {sets[0]}"


def _name_dots(axes: Axes, names: Sequence[str], x: Sequence[float], y: Sequence[float]) -> None:
    """Writes each name beside its dot, towards the middle, moved up or down so that no two names meet."""
    low, high = axes.get_ylim()
    gap, middle = _LABEL_GAP * (high - low), (min(x) * max(x)) ** 0.5
    order = sorted(range(len(y)), key=lambda place: (y[place], place))
    heights: list[float] = []
    for place in order:
        heights.append(max(y[place], heights[-1] + gap if heights else low + gap / 2))
    excess = max(0.0, heights[-1] - high + gap / 2)
    for place, height in zip(order, heights, strict=True):
        left = x[place] <= middle
        near = [other for other in x if 1 / _NEAR < other / x[place] < _NEAR]
        axes.annotate(
            names[place],
            (x[place], y[place]),
            (1.13 * max(near) if left else min(near) / 1.13, height - excess),
            color=_COLOURS[place % len(_COLOURS)],
            fontsize=9,
            ha="left" if left else "right",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
        )


def _start(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCH, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finish(figure: Figure, axes: Axes) -> Figure:
    """With the legend above, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= _HALF_LEGEND else 1
    figure.legend(handles, labels, fontsize=9, loc="outside upper left", ncols=columns, frameon=False)
    return figure


def _plain_ticks(axis: Axis, *, base: int = 10) -> None:
    """1, 2, 5, 10 … on a logarithmic axis instead of powers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_locator(LogLocator(base=base, subs=(1, 2, 5) if base == 10 else (1,)))


def _endless(count: int) -> Sequence[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]
