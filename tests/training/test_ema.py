"""The running average of the weights."""

import pytest
import torch
from torch import nn

from robustscanner.errors import SpecError
from training.ema import Average


def layer(value: float) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(1)
    with torch.no_grad():
        norm.weight.fill_(value)
    return norm


def test_early_steps_weigh_more_than_late_ones() -> None:
    module = layer(0.0)
    average = Average(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average.update(0)  # keeps 1/10 of the noise it began with
    assert average.tensors["weight"].item() == pytest.approx(0.9)
    average.update(10_000)
    assert average.tensors["weight"].item() == pytest.approx(0.91)


def test_statistics_are_averaged_and_counts_copied() -> None:
    module = layer(0.0)
    average = Average(module, 0.5)
    module.running_mean.fill_(2.0)
    module.num_batches_tracked.fill_(7)
    average.update(10_000)
    assert average.tensors["running_mean"].item() == 1.0
    assert average.tensors["num_batches_tracked"].item() == 7


def test_own_weights_come_back_whatever_happens() -> None:
    module = layer(0.0)
    average = Average(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(3.0)
    seen = []

    def fail() -> None:
        with average.applied():
            seen.append(module.weight.item())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [*seen, module.weight.item()] == [0.0, 3.0]


def test_tensors_of_another_model_are_refused() -> None:
    average = Average(layer(0.0), 0.9)
    with pytest.raises(SpecError, match="does not fit"):
        average.load({"weight": torch.zeros(2)})
