"""The word renderer's contract: same seed same picture, labels in the set, pictures of sane size."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

from training.data.render import fonts as font_module
from training.data.render.fonts import FontError, find_fonts, font_weights, inspect_font
from training.data.render.synth import SynthOptions, WordSynthesizer
from training.data.render.text import DEFAULT_CHARACTERS, TextMix, Vocabulary

WORDS = ["hello", "street", "open", "don't", "café", "restaurant", "shop", "x" * 40]


@pytest.fixture(scope="module")
def synthesizer() -> WordSynthesizer:
    # No font files: Pillow's own font is there on every machine.
    return WordSynthesizer(WORDS, characters=DEFAULT_CHARACTERS, fonts=[])


def test_same_seed_gives_same_picture(synthesizer: WordSynthesizer) -> None:
    copy = pickle.loads(pickle.dumps(synthesizer))
    for seed in range(30):
        first, label = synthesizer.sample(np.random.default_rng(seed))
        second, again = copy.sample(np.random.default_rng(seed))
        assert label == again
        np.testing.assert_array_equal(first, second)


def test_pictures_are_sane(synthesizer: WordSynthesizer) -> None:
    low, high = SynthOptions().height_px
    for seed in range(300):
        picture, label = synthesizer.sample(np.random.default_rng(seed))
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert low <= picture.shape[0] <= high
        assert 6 <= picture.shape[1] <= 16 * picture.shape[0]
        assert 1 <= len(label) <= 25
        assert set(label) <= set(DEFAULT_CHARACTERS)


@pytest.mark.parametrize("characters", ["0123456789", "abcdef", "ABC-", "é", DEFAULT_CHARACTERS])
def test_labels_keep_to_the_characters(characters: str) -> None:
    vocabulary = Vocabulary(WORDS, characters=characters)
    rng = np.random.default_rng(0)
    labels = [vocabulary.sample(rng) for _ in range(500)]
    assert all(labels)
    assert set("".join(labels)) <= set(characters)


def test_every_kind_of_text_is_drawn() -> None:
    only = dict.fromkeys(TextMix.__dataclass_fields__, 0.0)
    for kind in only:
        vocabulary = Vocabulary(WORDS, characters=DEFAULT_CHARACTERS, mix=TextMix(**{**only, kind: 1.0}))
        rng = np.random.default_rng(1)
        assert len({vocabulary.sample(rng) for _ in range(60)}) > 5, kind


def test_different_text_gives_different_picture(synthesizer: WordSynthesizer) -> None:
    first = synthesizer.render("HELLO", np.random.default_rng(3))
    second = synthesizer.render("WORLD", np.random.default_rng(3))
    assert first.shape != second.shape or (first != second).any()


def test_empty_text_is_refused(synthesizer: WordSynthesizer) -> None:
    with pytest.raises(ValueError, match="empty"):
        synthesizer.render("", np.random.default_rng(0))


def test_backgrounds_are_used() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    with_pictures = WordSynthesizer(WORDS, characters=DEFAULT_CHARACTERS, fonts=[], backgrounds=[picture])
    shapes = {with_pictures.sample(np.random.default_rng(seed))[0].shape[2] for seed in range(50)}
    assert shapes == {3}


def test_broken_font_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "broken.ttf"
    path.write_bytes(b"not a font")
    assert inspect_font(path) is None
    assert find_fonts([tmp_path]) == []
    with pytest.raises(FontError, match="none of the 1 fonts"):
        WordSynthesizer(WORDS, characters=DEFAULT_CHARACTERS, fonts=[path])


def test_glyphs_that_are_missing_empty_or_equal_are_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draw = font_module._draw_glyphs
    font = font_module._open_for_inspection(None)
    monkeypatch.setattr(font_module, "_open_for_inspection", lambda path: font)
    tricks = {
        "empty.ttf": lambda c: " ",
        "missing.ttf": lambda c: font_module.MISSING_CHARACTER if c.islower() else c,
        "equal.ttf": lambda c: "A" if c.isupper() else c,
        "rotated.ttf": lambda c: chr((ord(c) - 64) % 26 + 65) if c.isalpha() else c,
    }
    for name, trick in tricks.items():
        font_module._reference_shapes()  # taken from the honest font, before the trick
        monkeypatch.setattr(font_module, "_draw_glyphs", lambda f, cs, t=trick: {c: draw(f, t(c))[t(c)] for c in cs})
        assert inspect_font(tmp_path / name) is None, name
        monkeypatch.setattr(font_module, "_draw_glyphs", draw)


def test_capitals_only_font_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draw = font_module._draw_glyphs
    font = font_module._open_for_inspection(None)
    font_module._reference_shapes()
    monkeypatch.setattr(font_module, "_open_for_inspection", lambda path: font)
    monkeypatch.setattr(font_module, "_draw_glyphs", lambda f, cs: {c: draw(f, c.upper())[c.upper()] for c in cs})
    face = inspect_font(tmp_path / "capitals.ttf")
    assert face is not None
    assert face.caps_only


def test_falls_back_to_the_embedded_font(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("training.data.render.synth.find_fonts", lambda: [])
    with caplog.at_level(logging.WARNING):
        synthesizer = WordSynthesizer(WORDS, characters=DEFAULT_CHARACTERS)
    assert "no usable font" in caplog.text
    assert synthesizer.render("Hi", np.random.default_rng(0)).dtype == np.uint8


def test_large_families_do_not_dominate() -> None:
    face = inspect_font(None)
    assert face is not None
    weights = font_weights([face] * 40 + [font_module.FontFace(None, "small", False, face.resemblance)])
    assert weights[-1] > 5 * weights[0]
