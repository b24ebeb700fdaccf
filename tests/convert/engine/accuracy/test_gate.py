"""The gate: which layers are restored, what a refusal says, and what an engine remembers."""

from collections.abc import Collection
from pathlib import Path

import onnx
import pytest

from convert.build_engine import main
from convert.engine.accuracy.gate import Choice, GateOptions, choose_float_layers, rank_layers, repair
from convert.engine.accuracy.trial import Trial, Trials
from convert.engine.cpu.backend import CpuBackend
from convert.engine.model_source import load_source
from convert.int8.calibration import load_calibration
from convert.int8.recipe import AUTO, Recipe, exact_pattern
from robustscanner.engine import EngineAccuracy, read_manifest
from robustscanner.spec import InputSpec
from tests.convert.conftest import TINY, whole_sums


class FakeTrials:
    """Each layer in 8 bits costs its own number of points."""

    def __init__(self, **costs: float) -> None:
        self.costs, self.layers, self.base = costs, tuple(costs), Trial(1.0, 1.0, 0.0)
        self.runs = 0

    def run(self, float_layers: Collection[str]) -> Trial:
        self.runs += 1
        lost = sum(cost for layer, cost in self.costs.items() if layer not in float_layers)
        return Trial(1 - lost / 100, 1.0, lost)


@pytest.mark.parametrize(
    ("allowed", "kept"), [(9.0, ()), (3.0, ("a",)), (2.0, ("a", "b")), (0.0, ("a", "b", "c")), (2.5, ("a", "c"))]
)
def test_restores_no_more_than_needed(allowed: float, kept: tuple[str, ...]) -> None:
    trials = FakeTrials(a=6.0, b=1.0, c=2.0)
    ranking = ["a", "c", "b"] if allowed == 2.5 else ["a", "b", "c"]
    assert choose_float_layers(ranking, trials, allowed).float_layers == kept  # type: ignore[arg-type]


def test_takes_back_what_a_bad_ranking_restored() -> None:
    trials = FakeTrials(harmless=0.0, harmful=5.0)
    choice = choose_float_layers(["harmless", "harmful"], trials, 1.0)  # type: ignore[arg-type]
    assert choice == Choice(("harmful",), Trial(1.0, 1.0, 0.0))


def test_divergence_ranks() -> None:
    assert rank_layers({"a": Trial(1, 1, 0.1), "b": Trial(0.9, 0.9, 0.3), "c": Trial(1, 1, 0.2)}) == ["b", "c", "a"]


@pytest.mark.parametrize(("engine", "passes"), [(0.900, True), (0.897, True), (0.896, False), (0.95, True)])
def test_three_words_of_a_thousand(engine: float, passes: bool) -> None:
    assert GateOptions(0.3).lets_pass(EngineAccuracy(1000, 0.9, engine, 0.9)) == passes


def test_a_pattern_fits_one_name_only() -> None:
    from fnmatch import fnmatchcase

    pattern = exact_pattern("/a[1]/*")
    assert fnmatchcase("/a[1]/*", pattern)
    assert not fnmatchcase("/a1/b", pattern)


@pytest.fixture
def hard(crops: Path) -> Path:
    """Labels that 8 bits in every layer read less of than FP32 does, and 8 bits in some as well."""
    calibration = load_calibration(crops, InputSpec())
    trial = Trials(CpuBackend.quantise, load_source(TINY), calibration, calibration).run(())
    assert trial.rate < 1, "the tiny model reads the same in 8 bits: nothing to repair"
    return crops


def test_trips(hard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out" / "tiny.engine"
    arguments = [str(TINY), "--int8", "--exclude", "", "-o", str(target), "--calib-data", str(hard), "--max-drop", "0"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --max-drop 0: int8 loses ")
    assert error.endswith("add --repair to keep the worst layers in FP32, or try another --calib-method\n")
    assert error.count("\n") == 1
    assert list(target.parent.iterdir()) == []


@whole_sums
def test_repairs(hard: Path, tmp_path: Path) -> None:
    target = tmp_path / "tiny.engine"
    arguments = [str(TINY), "--int8", "--exclude", "", "-o", str(target), "--calib-data", str(hard)]
    # These weights are untrained: 7 bits change so much that the words read one by one are not those of the trials.
    assert main([*arguments, "--no-reduce-range", "--max-drop", "0", "--repair"]) == 0
    manifest = read_manifest(target)
    assert manifest.accuracy is not None
    assert manifest.accuracy.engine_rate == manifest.accuracy.fp32_rate == 1
    steps = {step["step"]: step for step in manifest.history}
    assert steps["gate"]["restored"]
    assert set(steps["gate"]["restored"]) < set(steps["quantize"]["excluded"])
    assert (steps["gate"]["max_drop_points"], steps["gate"]["drop_points"]) == (0, 0)


def in_8_bits(folder: Path) -> set[str]:
    """Names of the layers of a built graph whose weights are whole numbers."""
    graph = onnx.load(folder / "model.onnx").graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = {n.name for n in graph.node if n.op_type == "Conv" and makers.get(n.input[1]) == "DequantizeLinear"}
    return convolutions | {node.name for node in graph.node if node.op_type == "DynamicQuantizeLSTM"}


@whole_sums
def test_what_is_restored_is_what_is_built(crops: Path, tmp_path: Path) -> None:
    """On the default path, where more than convolutions is in 8 bits."""
    backend, source, calibration = CpuBackend(), load_source(TINY), load_calibration(crops, InputSpec())
    recipe = backend.settle(Recipe(AUTO, (AUTO,)), source.spec)
    restored = repair(backend.quantise, source, calibration, recipe, GateOptions(0, repair=True))
    assert restored, "the tiny model reads the same in 8 bits: nothing to repair"
    built = []
    for name, tried in (("plain", recipe), ("repaired", recipe.sparing(restored))):
        (tmp_path / name).mkdir()
        backend.make(source, calibration, tried, tmp_path / name)
        built.append(in_8_bits(tmp_path / name))
    assert built[0] - built[1] == set(restored)
    assert built[1] < built[0]


def test_passes_and_remembers(crops: Path, tmp_path: Path) -> None:
    target = tmp_path / "tiny.engine"
    arguments = [str(TINY), "--fp32", "-o", str(target), "--calib-data", str(crops), "--max-drop", "0.5"]
    assert main(arguments) == 0
    gate = next(step for step in read_manifest(target).history if step["step"] == "gate")
    assert (gate["max_drop_points"], gate["restored"]) == (0.5, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--int8", "--repair"], "give --max-drop POINTS"),
        (["--fp32", "--repair", "--max-drop", "1"], "is for --int8 only"),
    ],
)
def test_refuses_a_repair_of_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(TINY), "-o", str(tmp_path / "x.engine"), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_points_are_points(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(TINY), "--int8", "-o", "x.engine", "--max-drop", "-1"])
    assert "is not a number of percentage points" in capsys.readouterr().err
