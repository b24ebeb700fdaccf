"""Calibration: which crops are drawn, and which ranges come out."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from convert.int8.arguments import MEASURED
from convert.int8.calibration import Histogram, Inputs, collect_ranges, load_calibration
from robustscanner.labels import DataError
from robustscanner.preprocess import load_image, make_batch
from robustscanner.spec import InputSpec
from tests.convert.conftest import CROPS, TINY


def relabel(folder: Path, crops: Path, lines: str) -> Path:
    (folder / "labels.tsv").write_text(lines, encoding="utf-8")
    for picture in crops.glob("*.png"):
        (folder / picture.name).write_bytes(picture.read_bytes())
    return folder


def test_tiny_model_is_checked_in_small_and_tells_pictures_apart(crops: Path) -> None:
    assert all(path.stat().st_size < 200_000 for path in TINY.parent.glob("tiny.*"))
    labels = [line.split("\t")[1] for line in (crops / "labels.tsv").read_text(encoding="utf-8").splitlines()]
    assert len(set(labels)) == CROPS
    assert all(labels)


def test_draws_evenly_and_always_the_same(crops: Path) -> None:
    drawn = load_calibration(crops, InputSpec(), images=4)
    assert [crop.path.name for crop in drawn.crops] == ["00.png", "03.png", "06.png", "09.png"]
    assert len(load_calibration(crops, InputSpec(), images=1000).crops) == CROPS


def test_canvases_are_those_of_serving(crops: Path) -> None:
    calibration = load_calibration(crops, InputSpec())
    canvases, widths = make_batch([load_image(crop.path) for crop in calibration.crops], InputSpec())
    batches = list(calibration.batches())
    assert np.array_equal(np.concatenate([batch["images"] for batch in batches]), canvases)
    assert np.array_equal(np.concatenate([batch["valid_width"] for batch in batches]), widths)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "no labels.tsv"),
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("00.png\n", "line 1 has no label"),
        ("00.png\tword\n01.png\t\n", "line 2 has no label"),
        ("missing.png\tword\n", "none of its 1 pictures can be read"),
    ],
)
def test_refuses_unusable_folders_in_one_line(tmp_path: Path, crops: Path, lines: str | None, message: str) -> None:
    if lines is not None:
        relabel(tmp_path, crops, lines)
    with pytest.raises(DataError, match=message) as caught:
        load_calibration(tmp_path, InputSpec())
    assert "\n" not in str(caught.value)


def test_names_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_calibration(tmp_path / "nowhere", InputSpec())


def test_labels_may_hold_quotes_and_odd_separators(tmp_path: Path, crops: Path) -> None:
    relabel(tmp_path, crops, '\ufeff00.png\t"a b"\r\n01.png\tc\u2028d\n')
    assert [crop.label for crop in load_calibration(tmp_path, InputSpec()).crops] == ['"a b"', "c\u2028d"]


def test_unreadable_pictures_are_left_out_and_counted(tmp_path: Path, crops: Path) -> None:
    relabel(tmp_path, crops, "00.png\ta\nbad.png\tb\nmissing.png\tc\n01.png\td\n")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    calibration = load_calibration(tmp_path, InputSpec())
    assert [crop.label for crop in calibration.crops] == ["a", "d"]
    assert len(calibration.canvases) == len(calibration.widths) == 2
    assert [Path(line.split(":")[0]).name for line in calibration.unreadable] == ["bad.png", "missing.png"]


@pytest.mark.parametrize("method", MEASURED)
def test_ranges_hold_zero_and_lie_within_the_extremes(tiny: onnx.ModelProto, crops: Path, method: str) -> None:
    tensors = [node.output[0] for node in tiny.graph.node if node.op_type in ("Conv", "Relu")]
    calibration = load_calibration(crops, InputSpec())
    widest = collect_ranges(tiny, tensors, calibration.batches(), method="max", images=CROPS)
    ranges = collect_ranges(tiny, tensors, calibration.batches(), method=method, images=CROPS)
    assert (ranges.method, ranges.images, list(ranges.limits)) == (method, CROPS, tensors)
    for name, (low, high) in ranges.limits.items():
        assert widest.limits[name][0] <= low <= 0 <= high <= widest.limits[name][1]
        assert high > low


def test_any_iterable_of_inputs_will_do(tiny: onnx.ModelProto) -> None:
    batch: Inputs = {"images": np.full((1, 48, 160, 3), 255, np.uint8), "valid_width": np.full(1, 160, np.int32)}
    pixels = next(node.input[0] for node in tiny.graph.node if node.op_type == "Conv")
    assert collect_ranges(tiny, [pixels], [batch], method="max", images=1).limits == {pixels: (0.0, 1.0)}


@pytest.mark.parametrize("values", [[-3.0, 1.0, 2.0, 7.5], [7.5, 2.0, 1.0, -3.0]])
def test_histogram_counts_all_values_whatever_comes_first(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(np.array([value, value], np.float32))
    assert histogram.counts.sum() == 8
    assert histogram.limits("max") == (-3.0, 7.5)
    centres = (
        (np.flatnonzero(histogram.counts) + 0.5 - len(histogram.counts) / 2)
        * histogram.reach
        * 2
        / len(histogram.counts)
    )
    assert centres == pytest.approx(sorted(values), abs=0.01)


@pytest.mark.parametrize("method", MEASURED)
def test_a_tensor_of_zeros_has_no_range(method: str) -> None:
    histogram = Histogram()
    histogram.add(np.zeros(5, np.float32))
    assert histogram.limits(method) == (0.0, 0.0)


@pytest.mark.parametrize(("method", "largest"), [("percentile", 6), ("entropy", 20)])
def test_clips_a_rare_outlier(method: str, largest: float) -> None:
    histogram = Histogram()
    values = np.abs(np.random.default_rng(0).normal(size=200_000)).astype(np.float32)
    values[0] = 100
    histogram.add(values)
    low, high = histogram.limits(method)
    assert low == 0
    assert 2 < high < largest


def test_keeps_an_even_spread_whole() -> None:
    histogram = Histogram()
    histogram.add(np.linspace(-1, 1, 100_001, dtype=np.float32))
    assert histogram.limits("entropy") == pytest.approx((-1, 1), abs=0.02)
    assert histogram.limits("percentile") == pytest.approx((-1, 1), abs=0.002)
