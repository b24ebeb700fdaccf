"""The library's front door."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from fake_model import CHARACTERS, FakeOptions, open_width, picture_of, write_fake_model
from hypothesis import given, settings
from hypothesis import strategies as st

from robustscanner import EngineError, ImageError, Reading, Recognizer, SessionOptions
from robustscanner.engine import open_engine
from robustscanner.picture import Picture

WORDS = [a + b + "z" for a in "abcdefg" for b in "012345"]  # 42
OPTIONS = SessionOptions(threads=1)


def test_reads_paths_and_arrays(engine: Path, word: Callable[..., Path]) -> None:
    with Recognizer(engine) as recognizer:
        assert recognizer.read(word("dog")) == Reading("dog", 0.5)  # 80 of 160 pixels
        assert recognizer.read(str(word("cat", "cat.jpg"))).text == "cat"
        assert recognizer.read(picture_of("owl", width_px=400)) == Reading("owl", 1.0)


@pytest.mark.parametrize("batch_size", [1, 5, 42, 100])
def test_order_and_chunks(engine: Path, batch_size: int) -> None:
    with Recognizer(engine, batch_size=batch_size, options=OPTIONS) as recognizer:
        assert [r.text for r in recognizer.read_batch([picture_of(text) for text in WORDS])] == WORDS
        assert recognizer.read_batch([]) == []


@pytest.mark.parametrize("batch_size", [1, 4, 42])
def test_canvases_as_wide_as_their_word(tmp_path: Path, batch_size: int) -> None:
    """The score, of valid pixels in all, tells the canvas, and that no companion widens it."""
    model = write_fake_model(tmp_path / "open.onnx", open_width())
    widths = [48 + 4 * (7 * index % 40) for index in range(len(WORDS))]
    pictures = [picture_of(text, width_px=width) for text, width in zip(WORDS, widths, strict=True)]
    with Recognizer(model, batch_size=batch_size, options=OPTIONS) as recognizer:
        readings = recognizer.read_batch(pictures)
    assert [reading.text for reading in readings] == WORDS
    expected = [width / (-(-(width + 8) // 16) * 16) for width in widths]
    assert [reading.score for reading in readings] == pytest.approx(expected)


def test_one_batch_at_a_time(engine: Path) -> None:
    taken: list[str] = []

    def pictures() -> Iterator[Picture]:
        for text in WORDS:
            taken.append(text)
            yield picture_of(text)

    with Recognizer(engine, batch_size=4) as recognizer:
        assert [r.text for _, r in islice(recognizer.read_each(pictures()), 5)] == WORDS[:5]  # type: ignore[union-attr]
        assert len(taken) == 8


@pytest.mark.parametrize(("limit", "sizes"), [(None, [16, 16, 10]), (20, [16, 16, 10]), (15, [15, 15, 12])])
def test_engine_limits_the_batch(
    engine: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, sizes: list[int]
) -> None:
    session = open_engine(engine, OPTIONS)
    run = session.run
    seen: list[int] = []

    def count_and_run(images: np.ndarray, *others: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(images))
        return run(images, *others)

    monkeypatch.setattr(session, "max_batch", limit)
    monkeypatch.setattr(session, "run", count_and_run)
    monkeypatch.setattr("robustscanner.recognizer.open_engine", lambda *_: session)
    with Recognizer(engine, batch_size=16) as recognizer:
        recognizer.read_batch([picture_of(text) for text in WORDS])
    assert seen == sizes


def test_bad_pictures_stop_nothing(engine: Path, word: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    pictures: list[Picture] = [
        tmp_path / "empty.png",
        word("dog"),
        tmp_path / "no.png",
        np.zeros(3, np.uint8),
        word("cat"),
    ]
    with Recognizer(engine, batch_size=2) as recognizer:
        results = list(recognizer.read_each(pictures))
        assert [source for source, _ in results] == pictures
        said = [result.text if isinstance(result, Reading) else str(result).split(": ")[-1] for _, result in results]
        causes = [text.split(";")[0] for text in said]
        assert causes == ["empty file", "dog", "No such file or directory", "picture has shape [3]", "cat"]
        with pytest.raises(ImageError, match="empty file"):
            recognizer.read_batch(pictures)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.none() | st.text(CHARACTERS[:80], min_size=3, max_size=3), max_size=9), st.integers(1, 4))
def test_any_mixture_keeps_its_order(engine: Path, mixture: list[str | None], batch_size: int) -> None:
    pictures = [picture_of(text) if text else np.zeros((0, 1, 3), np.uint8) for text in mixture]
    with Recognizer(engine, batch_size=batch_size, options=OPTIONS) as recognizer:
        results = [result for _, result in recognizer.read_each(pictures)]
    assert [result.text if isinstance(result, Reading) else None for result in results] == mixture


def test_broken_engine_is_named(tmp_path: Path) -> None:
    path = write_fake_model(tmp_path / "nan.onnx", FakeOptions(score_scale=float("nan")))
    with Recognizer(path) as recognizer, pytest.raises(EngineError, match=r"nan\.onnx: scores are not finite"):
        recognizer.read(picture_of("dog"))


def test_closed(engine: Path) -> None:
    recognizer = Recognizer(engine)
    recognizer.close()
    recognizer.close()
    with pytest.raises(EngineError, match="already closed"):
        recognizer.read(picture_of("dog"))


def test_batch_size_must_be_positive(engine: Path) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        Recognizer(engine, batch_size=0)


def test_reading_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Reading("a", 1.0).text = "b"  # type: ignore[misc]
