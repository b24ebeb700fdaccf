"""Reads the calibration crops with an engine and with the model it came from."""

from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from robustscanner.engine import EngineAccuracy
from robustscanner.errors import ImageError
from robustscanner.labels import DataError
from robustscanner.recognizer import Recognizer
from robustscanner.scoring import Scorer
from robustscanner.session import GpuOptions, SessionOptions

from ...int8.calibration import CalibrationSet
from ..product import Product


def measure(
    source: Path, folder: Path, product: Product, calibration: CalibrationSet, scorer: Scorer
) -> EngineAccuracy:
    """Accuracy of both, read as serving does, or as near to it as possible where the engine cannot run."""
    expected = _read_crops(source, calibration)
    # The plans were made a moment ago: what code they carry is the library's own.
    got = _read_crops(folder, calibration, host_code=True) if product.simulate is None else product.simulate()
    before, after = scorer.score(expected), scorer.score(got)
    alike = sum(a == b for a, b in zip(expected, got, strict=True)) / len(got)
    simulated, protocol = product.simulate is not None, scorer.protocol.name
    return EngineAccuracy(after.words, before.rate, after.rate, alike, simulated=simulated, protocol=protocol)


def _read_crops(model: Path, calibration: CalibrationSet, *, host_code: bool = False) -> list[str]:
    texts = []
    options = SessionOptions(spinning=False, gpu=GpuOptions(host_code=host_code))
    with Recognizer(model, options=options) as recognizer:
        paths = [crop.path for crop in calibration.crops]
        for path, result in tqdm(recognizer.read_each(paths), "reading", len(paths), leave=False, disable=None):
            if isinstance(result, ImageError):  # it could be read a minute ago
                raise DataError(f"{path}: changed while the engine was built ({result}); start again")
            texts.append(result.text)
    return texts
