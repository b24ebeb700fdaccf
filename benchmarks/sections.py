"""What the results say, question by question: the verdict first, what it was measured on last."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from benchmarks.charts import (
    batch_curve,
    cost_by_length,
    latency_against_accuracy,
    load_curve,
    reliability_diagram,
    stage_breakdown,
)
from benchmarks.kernels import shared_memory
from benchmarks.table import Table, number
from convert.engine.accuracy.chart import draw, short_name

KINDS = (
    "compare",
    "latency",
    "accuracy",
    "sensitivity",
    "gate",
    "footprint",
    "native",
    "kernels",
    "reliability",
    "lexicon",
    "constraints",
    "letters",
    "serving",
    "photos",
)
RANDOM = "-random"  # ends the name of a model of `random_checkpoint.py`

Result = Mapping[str, Any]  # of one program, as it wrote it
Rows = Mapping[str, Mapping[str, Any]]  # engine or peer -> its figures


@dataclass(frozen=True)
class Section:
    """One question, and what answers it."""

    title: str
    text: str = ""  # how to read it
    points: Sequence[str] = ()
    table: Table | None = None
    figure: Figure | None = None
    transcript: str = ""
    folded: bool = False  # the table, on the page: the picture tells most of it


def all_sections(results: Mapping[str, Sequence[Result]]) -> Iterator[Section]:
    """The whole page, of whatever was measured."""
    yield verdict(results)
    for result in results["compare"]:
        yield from compare_sections(result)
    for group in by_machine(results["latency"]):
        yield from latency_sections(group)
    for result in results["accuracy"]:
        yield accuracy_section(result)
    if results["sensitivity"]:
        yield methods_section(results["sensitivity"])
    for result in results["sensitivity"]:
        yield layers_section(result)
    for result in results["gate"]:
        yield gate_section(result)
    for result in results["footprint"]:
        yield footprint_section(result)
    for result in results["native"]:
        yield native_section(result)
    for result in results["kernels"]:
        yield kernels_section(result)
    for result in results["reliability"]:
        yield reliability_section(result)
    for result in results["lexicon"]:
        yield lexicon_section(result)
    for result in results["constraints"]:
        yield constraints_section(result)
    for result in results["letters"]:
        yield letters_section(result)
    for result in results["serving"]:
        yield from serving_sections(result)
    for result in results["photos"]:
        yield photos_section(result)
    yield machine_section([result for kind in KINDS for result in results[kind]])


def verdict(results: Mapping[str, Sequence[Result]]) -> Section:
    """The answers in a few sentences."""
    points = [point for result in results["compare"] for point in _peer_points(result)]
    points += [point for result in results["accuracy"] for point in _precision_points(result)]
    points += [point for result in results["latency"] for point in _limit_points(result)]
    return Section("In short", points=points)


def compare_sections(result: Result) -> Iterator[Section]:
    """Peers."""
    readers = titled(result["readers"])
    unit = next(iter(readers.values()))["latency_ms"]["p50"]
    sets = list(next(iter(readers.values()))["sets"])
    most = {folder: max(row["sets"][folder]["words"] for row in readers.values()) for folder in sets}
    rows = []
    for name, row in readers.items():
        times = [number(row["latency_ms"][key], 1) for key in ("p50", "p90")]
        rates = [_accuracy(row["sets"][folder], most[folder]) for folder in sets]
        rows.append([name, *times, number(row["latency_ms"]["p50"] / unit, 1), *rates])
    rows += [[name, "not run", *["–"] * (2 + len(sets))] for name in result.get("missing", ())]
    text = (
        f"One word at a time, from the bytes of its file to text, {result['threads']} threads, all in one run. "
        "«Times»: the median over that of the first. Words right in percent, with 95 % intervals; case and everything "
        "but Latin letters and digits do not count."
    )
    table = Table(["", "p50 ms", "p90 ms", "times", *(f"{name}, %" for name in sets)], rows)
    notes = [
        f"{name}: {row['wheel']}{_bracketed(row.get('precision'))}" for name, row in readers.items() if "wheel" in row
    ]
    notes += [f"Left out: {reason}" for reason in result.get("missing", {}).values()]
    yield Section("Beside what people use today", text, notes, table, latency_against_accuracy(readers))


def latency_sections(results: Sequence[Result]) -> Iterator[Section]:
    """Our engines in detail, measured on one machine."""
    engines = titled({name: row for result in results for name, row in result["engines"].items()})
    crops = results[0]["settings"]["crops"]
    text = (
        f"From the bytes of a picture file in memory to text, {results[0]['settings']['threads']} threads, crops of "
        f"{crops}, engines in turn round by round. «x limit»: how many times longer a word takes than its arithmetic "
        "would at the best rates this machine showed in the same run."
    )
    yield Section("Latency", text, table=_latency_table(engines), figure=batch_curve(engines))
    text = _stage_line(*next(iter(engines.items())))
    yield Section("Where the time goes", text, table=_stage_table(engines), figure=stage_breakdown(engines))
    yield Section("How near the limit", _limit_text(results[0]["limits"]), table=_roofline_table(engines))
    timed = {name: row for name, row in engines.items() if row.get("length_line")}
    if timed:
        text = "Decoding stops after the last character, so a short word costs less."
        yield Section("Cost by text length", text, figure=cost_by_length(timed))
    if any("concurrency" in row for row in engines.values()):
        text = "They share one engine and the cores."
        yield Section("Several callers", text, table=_concurrency_table(engines))
    if any("soak" in row for row in engines.values()):
        yield Section("For minutes", "The last eighth against the first.", table=_soak_table(engines))


def accuracy_section(result: Result) -> Section:
    """Our engines against one of them."""
    engines = titled(result["engines"])
    sets = list(next(iter(engines.values()))["sets"])
    rows = []
    for name, row in engines.items():
        against = row.get("against_reference")
        split = f"{against['only_second']} / {against['only_first']}" if against else "–"
        difference = [f"{against['points']:+.2f}", split, f"{against['p']:.2g}"] if against else ["–"] * 3
        rows.append([name, *(_accuracy(row["sets"][folder]) for folder in sets), *difference])
    table = Table(["", *(f"{name}, %" for name in sets), "points", "won / lost", "p"], rows)
    reference = next(title for title in titled(result["engines"], only=[result["reference"]]))
    text = (
        f"Words right in percent, with 95 % intervals; then all words together against {reference}, word by word "
        "(McNemar's exact test: p near 1 says that they are equally good)."
    )
    return Section("What 8 bits cost", text, table=table)


def reliability_section(result: Result) -> Section:
    """What scores are worth."""
    engines = titled(result["engines"])
    levels = list(next(iter(next(iter(engines.values()))["sets"].values()))["thresholds"])
    rows = [
        [
            f"{name}, {folder}",
            number(100 * row["right"]),
            f"{row['error_before']:.3f}",
            f"{row['error']:.3f}",
            *(_kept(row["thresholds"][level]) for level in levels),
        ]
        for name, engine in engines.items()
        for folder, row in engine["sets"].items()
    ]
    wanted = [f"for {100 * float(level):g} % right" for level in levels]
    table = Table(["", "right, %", "error at temperature 1", "error", *wanted], rows)
    text = (
        "«Error»: how far scores are from the share of readings that are right (expected calibration error, 15 bins). "
        "Then what to keep for a wanted share of right readings: the lowest score, and how many words have it."
    )
    points = [
        f"{name} on {what}: {100 * shares['0.9']:.1f} % of the pictures score 0.9 or more"
        for name, engine in engines.items()
        for what, shares in engine["nothing"].items()
    ]
    return Section("Can scores be trusted?", text, points, table, reliability_diagram(engines))


def lexicon_section(result: Result) -> Section:
    """What lists of words are worth."""
    engines = titled(result["engines"])
    ways = list(next(iter(next(iter(engines.values()))["sets"].values()))["right_percent"])
    rows = [
        [
            f"{name}, {row['words']} of {folder}",
            *(number(row["right_percent"][way]) for way in ways),
            *(number(row["median_ms"][way], 1) for way in ways),
        ]
        for name, engine in engines.items()
        for folder, row in engine["sets"].items()
    ]
    titles = {way: "free" if way == "free" else "full list" if way == "full" else f"list of {way}" for way in ways}
    table = Table(["", *(f"{titles[way]}, %" for way in ways), *(f"{titles[way]}, ms" for way in ways)], rows)
    full = ", ".join(
        f"{row['listed']['full']} of {folder}" for engine in engines.values() for folder, row in engine["sets"].items()
    )
    text = (
        "Words right in percent, and the median time of one, all ways in turn. A list holds the word itself among "
        f"others of its set and of a vocabulary, each in three ways of writing. In the full lists: {full}."
    )
    return Section("Words of a list", text, table=table)


def constraints_section(result: Result) -> Section:
    """What it is worth to say what a text may be, and what it costs."""
    ways = ("free", "characters", "pattern")
    rows = [
        [
            f"{name}, {kind}",
            *(number(row["right_percent"][way]) for way in ways),
            *(number(row["median_ms"][way], 1) for way in ways),
            str(engine["invalid_in_noise"][kind]),
        ]
        for name, engine in titled(result["engines"]).items()
        for kind, row in engine["kinds"].items()
    ]
    header = [*(f"{way}, %" for way in ways), *(f"{way}, ms" for way in ways), "not allowed"]
    text = (
        f"{result['count']} rendered words of each kind, read freely, from given characters and by a pattern, in "
        f"turn; median times. «Not allowed»: texts beyond the pattern, of {result['noise']} pictures of noise."
    )
    return Section("What a text may be", text, table=Table(["", *header], rows))


def letters_section(result: Result) -> Section:
    """How well letters are placed."""
    rows = [
        [
            name,
            *(f"{engine[part][figure]:g}" for part in ("centre", "edge") for figure in ("median", "p95")),
            number(engine["centre"]["within_half_percent"]),
            *(number(engine["median_ms"][part], 1) for part in ("read", "letters")),
        ]
        for name, engine in titled(result["engines"]).items()
    ]
    header = ["centre", "centre, 95 of 100", "edge", "edge, 95 of 100", "within half, %", "reading, ms", "letters, ms"]
    text = (
        f"{result['count']} words drawn where the truth is known. Errors as shares of the word's mean letter: the "
        "median, and what 95 of 100 letters keep within. Letters are a run of their own, after the reading."
    )
    return Section("Where letters stand", text, table=Table(["", *header], rows))


def serving_sections(result: Result) -> Iterator[Section]:
    """The server under load."""
    for name, engine in titled(result["engines"]).items():
        ways = [way for way in engine["rates"][0] if way != "offered_per_s"]
        rows = [
            [
                str(row["offered_per_s"]),
                *(number(row[way][figure], 1) for way in ways for figure in ("p50_ms", "p99_ms", "words_per_s")),
            ]
            for row in engine["rates"]
        ]
        header = [f"{way}: {title}" for way in ways for title in ("p50, ms", "p99, ms", "words/s")]
        text = (
            "Requests of one picture each at even distances, whether or not those before are answered; a word's time "
            "begins when it is due. Loopback only: client and servers share the cores."
        )
        table = Table(["offered a second", *header], rows)
        yield Section(f"The server under load: {name}", text, table=table, figure=load_curve(engine["rates"], ways))


def photos_section(result: Result) -> Section:
    """Words of whole photos, beside and inside RapidOCR."""
    unit = result["engines"]["RapidOCR"]["ways"]["alone"]["p50_ms"]
    rows = [
        [
            f"{name}, {way}",
            number(100 * row["found"]),
            _accuracy(row["read"]),
            number(100 * row["exact"]),
            str(row["elsewhere"]),
            number(row["p50_ms"], 0),
            number(row["p50_ms"] / unit, 2),
        ]
        for name, engine in titled(result["engines"]).items()
        for way, row in engine["ways"].items()
    ]
    table = Table(["", "found, %", "read, %", "every character, %", "elsewhere", "p50 ms", "times"], rows)
    text = (
        f"{result['photos']} rendered photos with {result['words']} words that stand apart, from pixels to all texts, "
        f"all ways in turn, threads: {result['threads']}. «Times»: the median over RapidOCR's. Load of the machine at "
        f"the start: {result['machine']['load'][0]}; where other work ran, compare only. All have RapidOCR's "
        "detector; --detect opens it anew for each photo, gives it all cores, and does without a look at which way up "
        "a word is. Read: case and everything but Latin letters and digits do not count; «every character»: they do. "
        "«Elsewhere»: readings where no word, or not that word alone, stands; RapidOCR leaves out scores below 0.5, "
        "--detect does not. Fonts and textures are the renderer's, with which our models were trained."
    )
    return Section("Words of photos", text, table=table)


def _kept(threshold: Mapping[str, float] | None) -> str:
    return f"{threshold['score']:.2f}, {100 * threshold['kept']:.0f} %" if threshold else "–"


def methods_section(results: Sequence[Result]) -> Section:
    """Ways to choose ranges, all models in one table."""
    header, rows = [""], {method: [method] for method in results[0]["methods"]}
    for result in results:
        header += [f"{_model(result)}: {name}" for name in _measures(result)]
        for method, row in rows.items():
            row += _columns(result, result["methods"][method])
    text = (
        "All convolutions in 8 bits, against FP32. «Alike»: words that read the same, right or wrong. «Divergence»: "
        "how far the probabilities of a character move (Kullback-Leibler), in nats."
    )
    return Section("INT8: ways to choose ranges", text, table=Table(header, list(rows.values())))


def layers_section(result: Result) -> Section:
    """What 8 bits do to each layer of a model."""
    header = ["", *(f"alone: {name}" for name in _measures(result)), *(f"all but it: {n}" for n in _measures(result))]
    rows = [
        [short_name(row["layer"]), *_columns(result, row["alone"]), *_columns(result, row["restored"])]
        for row in result["layers"]
    ]
    rows.append(["all in 8 bits", *_columns(result, result["all_int8"]), *[""] * len(_measures(result))])
    worst = ", ".join(f"{short_name(r['layer'])} ({r['alone']['divergence']:.2g} nats)" for r in result["layers"][:3])
    text = f"Each layer alone in 8 bits, then all but it, on {result['words']} words. Most harmful alone: {worst}. "
    text += _least(result) if result["fp32_accuracy"] else "Random weights read no word right: only divergence counts."
    title = f"INT8, layer by layer: {_model(result)}"
    return Section(title, text, table=Table(header, rows), figure=draw(result), folded=True)


def gate_section(result: Result) -> Section:
    """A transcript of the gate."""
    runs = [[f"$ {run['command']}", *run["output"], f"exit status {run['status']}", ""] for run in result["runs"]]
    transcript = "\n".join(line for run in runs for line in run).strip()
    restored = [short_name(name) for step in result.get("history", ()) for name in step["restored"]]
    text = f"Every convolution in 8 bits, and at most {result['max_drop_points']:g} points to lose. "
    if restored:
        text += f"The build was refused; repaired, it keeps {', '.join(restored)} in FP32 and says so in its history."
    return Section("The accuracy gate at work", text, transcript=transcript)


def kernels_section(result: Result) -> Section:
    """What the CUDA kernels take of a GPU."""
    rows = []
    for target, found in result["targets"].items():
        kernels = {name.replace("_", ", "): figures for name, figures in found["kernels"].items()}
        spilled = sum(figures[what] for figures in kernels.values() for what in ("stack", "stores", "loads"))
        shared = shared_memory(int(target.removeprefix("sm_")))
        kib = [number(shared[name].shared_bytes / 1024) for name in ("decode, edge", "decode, r31", "rows, edge")]
        rows.append([target, *(str(figures["registers"]) for figures in kernels.values()), str(spilled), *kib])
    registers = [f"{name}: registers" for name in kernels]
    header = ["GPU", *registers, "spilled bytes", "decode, edge: KiB shared", "decode, r31", "rows, edge"]
    text = f"By ptxas, nvcc {result['nvcc']}; a thread may have 255 registers."
    return Section("CUDA kernels", text, table=Table(header, rows))


def footprint_section(result: Result) -> Section:
    """Memory and start."""
    rows = [[name, number(row["peak_memory_mib"], 0)] for name, row in titled(result["engines"]).items()]
    text = f"Reading a folder of pictures; --help takes {number(result['help_s'], 2)} s."
    return Section("Memory", text, table=Table(["", "most, MiB"], rows))


def native_section(result: Result) -> Section:
    """C++ beside Python."""
    rows = []
    for engine, row in titled(result["engines"]).items():
        for reader, found in row["readers"].items():
            times = [number(found["latency_ms"][key]) for key in ("p50", "p90")]
            rows.append([f"{engine}, {reader}", *times, number(found["peak_memory_mib"], 0)])
    text = f"One word at a time, given as pixels, threads: {result['threads']}. Memory: the most of the whole process."
    return Section("C++ beside Python", text, table=Table(["", "p50 ms", "p90 ms", "most, MiB"], rows))


def machine_section(results: Sequence[Result]) -> Section:
    """What everything was measured on."""
    machines = {describe_machine(result): None for result in results}
    rows = [
        [result["file"], str(machine.get("commit", "–")), " ".join(map(str, machine.get("load", ()))) or "–"]
        for result in results
        for machine in [result.get("machine", {})]
    ]
    text = "Load: of the whole machine when the program began, over 1, 5 and 15 minutes."
    return Section("Measured on", text, list(machines), Table(["", "commit", "load"], rows))


def describe_machine(result: Result) -> str:
    """Where and with what a result was measured, in one sentence."""
    machine = result.get("machine", {})
    facts = [machine.get("processor"), f"{machine['cores']} cores" if "cores" in machine else None]
    facts += [machine.get(key) for key in ("gpu", "power_mode", "governor", "system")]
    facts += [f"Python {machine['python']}" if "python" in machine else None]
    facts += [f"{name} {version}" for name, version in machine.get("versions", {}).items()]
    return ", ".join(str(fact) for fact in facts if fact)


def by_machine(results: Sequence[Result]) -> list[list[Result]]:
    """Only what ran on one machine shares a table."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        machine = result.get("machine", {})
        groups.setdefault((machine.get("processor"), machine.get("gpu")), []).append(result)
    return list(groups.values())


def titled(rows: Rows, *, only: Sequence[str] | None = None) -> dict[str, Mapping[str, Any]]:
    """The same under names for people: «edge INT8» instead of a file's, unless two would be called alike."""
    titles = {name: _title(name, row) for name, row in rows.items()}
    taken = list(titles.values())
    return {
        title if taken.count(title) == 1 else name: rows[name]
        for name, title in titles.items()
        if only is None or name in only
    }


def _title(name: str, row: Mapping[str, Any]) -> str:
    if "model" not in row:
        return name
    library = ", TensorRT" if str(row["backend"]).startswith("tensorrt") else ""
    weights = ", random weights" if row["model"].endswith(RANDOM) else ""
    return f"{row['model'].removesuffix(RANDOM)} {row['precision'].upper()}{library}{weights}"


def _peer_points(result: Result) -> Iterator[str]:
    readers = titled(result["readers"])
    first, ours = next(iter(readers.items()))
    times = {name: row["latency_ms"]["p50"] / ours["latency_ms"]["p50"] for name, row in readers.items()}
    faster = ", ".join(f"{number(ratio)} times as fast as {name}" for name, ratio in times.items() if name != first)
    yield f"{first} reads a word in {number(ours['latency_ms']['p50'])} ms (median), in one run {faster}."
    rates = [f"{name} {_rates(row)}" for name, row in readers.items() if _whole(row, ours)]
    yield f"Words right in {' and '.join(ours['sets'])}: {'; '.join(rates)}."


def _whole(row: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    return all(rate["words"] == ours["sets"][name]["words"] for name, rate in row["sets"].items())


def _rates(row: Mapping[str, Any]) -> str:
    return " and ".join(f"{100 * rate['accuracy']:.1f} %" for rate in row["sets"].values())


def _precision_points(result: Result) -> Iterator[str]:
    for name, row in titled(result["engines"]).items():
        if against := row.get("against_reference"):
            words = sum(rate["words"] for rate in row["sets"].values())
            yield f"{name} against FP32: {against['points']:+.2f} points on {words} words (p = {against['p']:.2g})."


def _limit_points(result: Result) -> Iterator[str]:
    for name, row in titled(result["engines"]).items():
        if row["precision"] == "int8" and "roofline" in row:
            sizes = list(row["batches"])
            rates = [row["batches"][size]["words_per_s"] for size in (sizes[0], sizes[-1])]
            yield (
                f"{name}: {number(rates[0], 0)} words a second one by one, {number(rates[1], 0)} in batches of "
                f"{sizes[-1]}; its network takes {number(row['roofline']['times_limit'])} times the least time its "
                "arithmetic needs here."
            )


def _latency_table(engines: Rows) -> Table:
    sizes = list(dict.fromkeys(size for row in engines.values() for size in row["batches"]))
    rows = []
    for name, row in engines.items():
        first = row["batches"][sizes[0]]
        rates = [number(row["batches"][size]["words_per_s"], 0) if size in row["batches"] else "–" for size in sizes]
        limit = row["roofline"]["limit_ms"] if "roofline" in row else None
        over = number(first["p50"] / limit) if limit else "–"
        rows.append([name, *(number(first[key]) for key in ("p50", "p90", "p99")), *rates, over])
    header = ["", *(f"{key} ms" for key in ("p50", "p90", "p99")), f"words/s at batch {sizes[0]}"]
    return Table([*header, *(f"at {size}" for size in sizes[1:]), "x limit"], rows)


def _stage_line(name: str, row: Mapping[str, Any]) -> str:
    stages = row["stages"]["milliseconds"]
    parts = ", ".join(f"{stage} {number(ms, 2)}" for stage, ms in stages.items())
    return f"A word with {name}, in milliseconds: {parts}; {number(sum(stages.values()), 2)} together."


def _stage_table(engines: Rows) -> Table:
    stages = list(dict.fromkeys(stage for row in engines.values() for stage in row["stages"]["milliseconds"]))
    rows = []
    for name, row in engines.items():
        parts = [number(row["stages"]["milliseconds"].get(stage), 2) for stage in stages]
        rows.append([name, *parts, number(row["stages"]["steps"])])
    return Table(["ms", *stages, "steps"], rows)


def _limit_text(limits: Mapping[str, float]) -> str:
    return (
        "Encoder and decoding steps of one word, against their arithmetic at this machine's best rates: a large "
        f"convolution with {number(limits['convolution_fp32_gflops'], 0)} GFLOP/s in FP32 and "
        f"{number(limits['convolution_int8_gflops'], 0)} in INT8, a matrix product with "
        f"{number(limits['gemm_fp32_gflops'], 0)}, a copy with {number(limits['copy_gbytes_s'])} GB/s."
    )


def _roofline_table(engines: Rows) -> Table:
    keys = {"int8_gflop": "INT8 GFLOP", "convolution_gflop": "FP32 convolutions", "product_gflop": "FP32 products"}
    keys |= {"mbytes": "MB", "limit_ms": "limit ms"}
    rows = [
        [name, *(number(row["roofline"][key], 2) for key in keys), number(row["roofline"]["times_limit"])]
        for name, row in engines.items()
        if "roofline" in row
    ]
    return Table(["", *keys.values(), "x limit"], rows)


def _concurrency_table(engines: Rows) -> Table:
    rows = [
        [name, callers, number(row["words_per_s"], 0), number(row["p50"]), number(row["p99"])]
        for name, engine in engines.items()
        for callers, row in engine.get("concurrency", {}).items()
    ]
    return Table(["", "callers", "words/s", "p50 ms", "p99 ms"], rows)


def _soak_table(engines: Rows) -> Table:
    rows = [
        [name, number(row["minutes"]), f"{100 * row['drift']:+.1f}", f"{row['growth_mib']:+.1f}"]
        for name, engine in engines.items()
        if (row := engine.get("soak"))
    ]
    return Table(["", "minutes", "time, %", "memory, MiB"], rows)


def _model(result: Result) -> str:
    name = str(result["model"])
    return f"{name.removesuffix(RANDOM)}, random weights" if name.endswith(RANDOM) else name


def _measures(result: Result) -> list[str]:
    """Points of words mean nothing where no word is read right."""
    return [*(["points lost"] if result["fp32_accuracy"] else []), "alike, %", "divergence"]


def _columns(result: Result, row: Mapping[str, float]) -> list[str]:
    points = [number(row["drop_points"], 2)] if result["fp32_accuracy"] else []
    return [*points, number(100 * row["agreement"]), f"{row['divergence']:.2g}"]


def _least(result: Result) -> str:
    least = result["least"]
    if not least["float_layers"]:
        return f"All of them together lose no more than {least['max_drop_points']:g} points."
    kept = ", ".join(map(short_name, least["float_layers"]))
    return f"To lose at most {least['max_drop_points']:g} points, keep in FP32: {kept} (red)."


def _accuracy(row: Mapping[str, float], words: int | None = None) -> str:
    """With the number of words where it is not what others read."""
    part = f", {row['words']} words" if words is not None and row["words"] < words else ""
    return f"{100 * row['accuracy']:.1f} ({100 * row['low']:.1f}–{100 * row['high']:.1f}{part})"


def _bracketed(text: str | None) -> str:
    return f" ({text})" if text else ""
