"""The mix of sources: its shares, its seeds, what it leaves out, and that it goes on where it stopped."""

import logging
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from robustscanner.charset import Charset
from robustscanner.labels import DataError, read_labels
from robustscanner.spec import CharsetSpec, ModelSpec, NetworkSpec
from tests.training.crop_sets import make_folder, make_lmdb, picture
from training.data.augment import AugmentOptions, augment
from training.data.folder import FolderSet, HoldOut
from training.data.lmdb_set import write_lmdb
from training.data.record import BadRecord
from training.data.source import AugmentedCrops, WordSource, encode_label, held_out_crops, open_sources
from training.data.stream import Batch, MixedStream

SPEC = ModelSpec("c", CharsetSpec.of("abc0123456789"), network=NetworkSpec("edge", 16, 6, (8, 8, 16, 16)))


class Numbers:
    """Draws words that carry their number; every third is bad."""

    def __init__(self, name: str, value: int) -> None:
        self.name, self.value = name, value

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        number = int(rng.integers(10**5))
        if number % 3 == 0:
            raise BadRecord("divisible")
        return np.full((20, 30 + number % 40, 3), self.value, np.uint8), [int(c) + 3 for c in str(number).zfill(5)]


def mixed(seed: int = 1, shard: tuple[int, int] = (0, 1), weights: tuple[float, float] = (3, 1)) -> MixedStream:
    drawers = [(Numbers("a", 10), weights[0]), (Numbers("b", 20), weights[1])]
    return MixedStream(SPEC, drawers, batch_size=4, bucket_batches=3, seed=seed, shard=shard)


def take(stream: MixedStream, count: int, **options: int) -> list[Batch]:
    batches = stream.batches(**options)
    try:
        return list(islice(batches, count))
    finally:
        batches.close()


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )


def labels(batches: list[Batch]) -> list[tuple[int, ...]]:
    return [tuple(row) for batch in batches for row in batch.tokens.tolist()]


def test_goes_on_where_it_stopped() -> None:
    whole = take(mixed(), 10)
    for step in (0, 1, 3, 7):
        assert equal(take(mixed(), 10 - step, first_step=step), whole[step:])
    assert not equal(take(mixed(), 10), take(mixed(seed=2), 10))


def test_workers_do_not_change_the_batches() -> None:
    whole = take(mixed(), 9)
    assert len(set(labels(whole))) == 36  # no word is drawn twice
    state = torch.get_rng_state()
    assert equal(take(mixed(), 9, workers=1), whole)
    assert torch.equal(torch.get_rng_state(), state)  # nor does the training draw other numbers
    assert equal(take(mixed(), 5, workers=2, first_step=4), whole[4:])


def test_processes_that_train_together_see_other_words() -> None:
    parts = [labels(take(mixed(shard=(rank, 2)), 6)) for rank in (0, 1)]
    assert not set(parts[0]) & set(parts[1])
    assert set(parts[0]) | set(parts[1]) == set(labels(take(mixed(), 12)))


def test_words_of_a_batch_are_about_as_wide() -> None:
    whole = take(mixed(), 3)
    spread = [int(batch.valid_width.max() - batch.valid_width.min()) for batch in whole]
    everything = torch.cat([batch.valid_width for batch in whole])
    assert max(spread) < int(everything.max() - everything.min())


def test_weights_are_kept() -> None:
    values = torch.cat([batch.images[:, 0, 0, 0] for batch in take(mixed(), 60)])
    assert 0.15 < (values == 20).float().mean() < 0.35


def test_what_is_left_out_is_told_once_a_source(caplog: pytest.LogCaptureFixture) -> None:
    for workers in (0, 1):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            take(mixed(), 12, workers=workers)
        firsts = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
        assert sorted(firsts) == [f"{name}: records are left out: divisible" for name in "ab"]
        counts = [record.getMessage().split(" left out: ") for record in caplog.records[-2:]]
        assert [(count.split(":")[0], reason) for count, reason in counts] == [("a", "divisible"), ("b", "divisible")]
        assert int(counts[0][0].split()[-1]) > int(counts[1][0].split()[-1]) > 0


def test_source_without_anything_usable_stops_the_run(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["xyz", "abcabcabc"])
    with pytest.raises(DataError, match=r"1000 records in a row cannot be used, the last: label (is too long|has)"):
        open_sources([WordSource.parse(str(folder))], SPEC)


def test_reasons_of_labels(tmp_path: Path) -> None:
    expected = {"xyz": "outside the charset", "abcabc": "too long", " ": "empty"}
    for number, (label, message) in enumerate(expected.items()):
        folder = make_folder(tmp_path / str(number), [label])
        with pytest.raises(BadRecord, match=message):
            AugmentedCrops(FolderSet(folder), Charset(SPEC.charset), 6).draw(np.random.default_rng(0))


def test_sliver_is_a_bad_record(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["1"])
    (folder / "images" / "0.png").write_bytes(cv2.imencode(".png", np.zeros((3, 90, 3), np.uint8))[1].tobytes())
    with pytest.raises(BadRecord, match="under 4 pixels"):
        AugmentedCrops(FolderSet(folder), Charset(SPEC.charset), 6).draw(np.random.default_rng(0))


def test_letters_take_the_case_that_the_charset_has() -> None:
    charset = Charset(CharsetSpec.of("abC"))
    assert encode_label("A bc", charset, 9) == [0, 1, 2]
    assert encode_label("ß", charset, 9) is None


def test_all_kinds_of_sources_are_drawn_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.render.synth.find_fonts", lambda: [])  # all of a system's takes seconds
    folder = make_folder(tmp_path / "folder", ["1"] * 30)
    write_lmdb(tmp_path / "lmdb", [(picture(i), "2") for i in range(5)])
    words = tmp_path / "words.txt"
    words.write_text("abc\ncab\n")
    sources = [WordSource.parse(text) for text in (f"{folder}=2", f"{tmp_path / 'lmdb'}=0.5", str(words))]
    assert [(source.kind, source.weight) for source in sources] == [("folder", 2), ("lmdb", 0.5), ("render", 1)]
    stream = MixedStream(SPEC, open_sources(sources, SPEC), batch_size=20, bucket_batches=2, seed=1)
    seen = {tuple(row[1:4]) for row in labels(take(stream, 4, workers=2))}
    one, two = ((*Charset(SPEC.charset).encode(c), SPEC.charset.end_id) for c in "12")
    assert one in {row[:2] for row in seen}
    assert two in {row[:2] for row in seen}
    assert any(len(set(row) & {0, 1, 2}) > 1 for row in seen)


def test_held_out_crops_are_not_trained_on(tmp_path: Path) -> None:
    sources = [WordSource.parse(str(make_folder(tmp_path / "f", [str(i % 10) for i in range(60)])))] * 2
    held_out = held_out_crops(sources, HoldOut(0.3))
    assert held_out == [crop for crop in read_labels(tmp_path / "f") if HoldOut(0.3).keeps(crop)]
    ((drawer, _), _) = open_sources(sources, SPEC, held_out=HoldOut(0.3))
    kept = {drawer._crops.crops[i].path for i in range(len(drawer._crops))}
    assert len(kept) == 60 - len(held_out) < 60
    assert kept.isdisjoint(crop.path for crop in held_out)


def test_sources_that_cannot_be_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["1"])
    make_lmdb(tmp_path / "empty", {b"num-samples": b"0"})
    cases = {f"{folder}=0": "positive", f"{folder}=much": "no number", f"{tmp_path / 'none'}=2": "check the path"}
    for text, message in cases.items():
        with pytest.raises(DataError, match=message):
            WordSource.parse(text)
    with pytest.raises(DataError, match="known: lmdb, folder, render"):
        WordSource("tar", folder)
    with pytest.raises(DataError, match="holds no crops"):
        open_sources([WordSource.parse(str(tmp_path / "empty"))], SPEC)
    with pytest.raises(DataError, match="no source"):
        open_sources([], SPEC)


def test_path_may_hold_an_equals_sign(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a=2", ["1"])
    assert WordSource.parse(str(folder)) == WordSource("folder", folder)
    assert WordSource.parse(f"{folder}=3") == WordSource("folder", folder, 3.0)


@pytest.mark.parametrize("size", [(4, 4), (9, 200), (200, 9), (40, 120)])
def test_augmented_crops_are_pictures(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    always = AugmentOptions(warp=1, curve=1, cut=1, invert=1, channels=1, shrink=1, degrade=1)
    for seed in range(20):
        first, second = (augment(image, np.random.default_rng(seed), options=always) for _ in range(2))
        assert first.dtype == np.uint8
        assert first.ndim == 3
        assert min(first.shape) >= 3
        assert np.array_equal(first, second)
    never = AugmentOptions(warp=0, curve=0, cut=0, invert=0, channels=0, shrink=0, degrade=0)
    assert np.array_equal(augment(image, np.random.default_rng(0), options=never), image)


def test_shrinking_makes_small_words_and_leaves_smaller_ones() -> None:
    only = AugmentOptions(warp=0, curve=0, cut=0, invert=0, channels=0, shrink=1, degrade=0, shrunk_height_px=(10, 20))
    rng = np.random.default_rng(0)
    heights = [augment(np.zeros((60, 90, 3), np.uint8), rng, options=only).shape[0] for _ in range(50)]
    assert 10 <= min(heights) < max(heights) <= 20
    assert augment(np.zeros((8, 20, 3), np.uint8), rng, options=only).shape == (8, 20, 3)
