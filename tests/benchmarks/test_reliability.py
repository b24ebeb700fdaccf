"""What scores are worth: figures that can be computed by hand."""

import numpy as np
import pytest

from benchmarks.reliability import calibration_error, describe, fit, threshold


def test_calibration_error_is_the_mean_distance_of_score_and_share() -> None:
    scores = np.array([0.95, 0.95, 0.95, 0.95, 0.31, 0.31])
    right = np.array([True, True, True, False, False, False])
    assert calibration_error(scores, right) == pytest.approx((4 * (0.95 - 0.75) + 2 * 0.31) / 6)


def test_finds_the_temperature_that_made_the_scores() -> None:
    rng = np.random.default_rng(0)
    chance = rng.uniform(0, 1, 20_000)
    right = rng.uniform(0, 1, 20_000) < chance
    assert fit(chance**2.5, right) == pytest.approx(2.5, rel=0.1)
    described = describe(chance, right, 2.5)
    assert described["error"] < 0.02 < described["error_before"]


def test_a_threshold_is_the_lowest_score_that_is_right_often_enough() -> None:
    scores, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True])
    assert threshold(scores, right, 0.7) == {"score": 0.6, "kept": 1.0}
    assert threshold(scores, right, 0.9) == {"score": 0.8, "kept": 0.5}
    assert threshold(scores, ~right, 0.9) is None
