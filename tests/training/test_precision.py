"""What a CPU without bfloat16 makes of settings that ask for it."""

from pathlib import Path

import pytest
import torch

from tests.training.small import batches, small_config
from training import precision
from training.precision import half_type
from training.trainer import Trainer

CPU = torch.device("cpu")
LINE = "precision bf16: this CPU cannot train in it; computing in float32"


@pytest.mark.parametrize(("can", "kind"), [(True, torch.bfloat16), (False, None)])
def test_falls_back_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, can: bool, kind: torch.dtype | None
) -> None:
    monkeypatch.setattr(precision, "trains_in_bfloat16", lambda: can)
    assert half_type("fp32", CPU) is None
    assert half_type("bf16", CPU) == kind
    assert caplog.messages == ([] if can else [LINE])


def test_a_step_is_then_one_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "trains_in_bfloat16", lambda: False)
    losses = []
    for name in ("fp32", "bf16"):
        config = small_config(precision=name)
        losses.append(Trainer(config, Path("unused"), []).train_step(next(batches(config))))
    assert losses[0] == losses[1]


def test_the_probe_leaves_the_random_numbers_alone() -> None:
    precision.trains_in_bfloat16.cache_clear()
    state = torch.get_rng_state()
    assert precision.trains_in_bfloat16() in (True, False)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_cpu_without_the_lstm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("could not create a primitive descriptor for the LSTM forward propagation primitive")

    precision.trains_in_bfloat16.cache_clear()
    monkeypatch.setattr(precision.nn.LSTM, "forward", refuse)
    assert not precision.trains_in_bfloat16()
    precision.trains_in_bfloat16.cache_clear()
