"""Which number format a run computes in here: what its settings ask for, or float32 where the CPU lacks that."""

import logging
from functools import cache

import torch
from torch import nn

logger = logging.getLogger(__name__)


def half_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The format of autocast; None: float32 throughout, also where a CPU cannot train in bfloat16, which is told."""
    if precision == "fp32":
        return None
    if device.type == "cpu" and not trains_in_bfloat16():
        logger.warning("precision %s: this CPU cannot train in it; computing in float32", precision)
        return None
    return torch.float16 if precision == "fp16" else torch.bfloat16


@cache
def trains_in_bfloat16() -> bool:
    """Whether this CPU has what a step needs, tried on a few numbers.

    Without AVX-512 (or Arm's own), oneDNN has no LSTM in bfloat16 and slow convolutions.
    """
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    state = torch.get_rng_state()  # the run's own numbers shall not depend on this
    try:
        with torch.autocast("cpu", torch.bfloat16):
            features = nn.Conv2d(1, 8, 3, padding=1)(torch.zeros(2, 1, 1, 4))  # (N, C, 1, W)
            columns, _ = nn.LSTM(8, 8)(features.flatten(2).permute(2, 0, 1))
        columns.float().sum().backward()
    except RuntimeError:  # "could not create a primitive descriptor"
        return False
    finally:
        torch.set_rng_state(state)
    return True
