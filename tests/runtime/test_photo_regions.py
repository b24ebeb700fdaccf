"""Words of a photo: cut out upright, and read as crops are."""

import cv2
import numpy as np
import pytest

from robustscanner import ImageError, Recognizer
from robustscanner.regions import cut
from robustscanner.spec import InputSpec
from tests.convert.conftest import TINY

SPEC = InputSpec()


def word(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 10, 3), np.uint8).repeat(10, 0).repeat(10, 1)


@pytest.fixture
def photo() -> np.ndarray:
    photo = np.full((200, 300, 3), 90, np.uint8)
    photo[20:60, 30:130], photo[100:140, 150:250] = word(1), word(2)
    return photo


def test_a_box_is_cut_as_it_is(photo: np.ndarray) -> None:
    first, second = cut(photo, [(30, 20, 100, 40), (150, 100, 100, 40)], SPEC)
    assert np.array_equal(first, word(1))
    assert np.array_equal(second, word(2))


@pytest.mark.parametrize("turns", range(4))
def test_a_turned_word_is_turned_back(photo: np.ndarray, turns: int) -> None:
    """Turned against the clock; its corners go with it."""
    corners = np.array([(30, 20), (129, 20), (129, 59), (30, 59)])
    for _ in range(turns):
        photo = np.rot90(photo)
        corners = np.stack([corners[:, 1], photo.shape[0] - 1 - corners[:, 0]], 1)
    (found,) = cut(np.ascontiguousarray(photo), [corners], SPEC)
    assert found.shape == word(1).shape
    assert np.abs(found.astype(int) - word(1)).max() <= 1


def test_perspective_is_undone(photo: np.ndarray) -> None:
    corners = np.array([(40, 60), (210, 30), (230, 150), (60, 130)], np.float32)
    source = np.array([(0, 0), (99, 0), (99, 39), (0, 39)], np.float32)
    seen = cv2.warpPerspective(word(3), cv2.getPerspectiveTransform(source, corners), (300, 200))
    (found,) = cut(seen, [corners], SPEC)
    back = cv2.resize(found, (100, 40), interpolation=cv2.INTER_AREA)
    middle = np.s_[5::10, 5::10]  # of each square
    assert np.abs(back[middle].astype(int) - word(3)[middle]).mean() < 12


def test_regions_read_as_crops_do(photo: np.ndarray) -> None:
    with Recognizer(TINY) as recognizer:
        expected = recognizer.read_batch([word(1), word(2)])
        data = cv2.imencode(".png", photo[:, :, ::-1])[1].tobytes()
        for picture in (photo, data):
            assert recognizer.read_regions(picture, [(30, 20, 100, 40), (150, 100, 100, 40)]) == expected


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((290, 20, 100, 40), "not within 300 x 200"),
        ((1, 2, 3), "expected"),
        ([(5, 5), (5, 5), (5, 5), (5, 5)], "span no area"),
    ],
)
def test_a_region_that_makes_no_sense_is_one_line(photo: np.ndarray, region: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        cut(photo, [region], SPEC)
