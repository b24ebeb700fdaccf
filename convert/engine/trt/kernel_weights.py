"""Weights as the CUDA kernels want them: unit by unit, each with its four gates."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .row_lstm import RowLayer

Arrays = Mapping[str, npt.NDArray[np.generic]]
FloatArray = npt.NDArray[np.floating]


def decode_weights(weights: Arrays, dtype: type[np.floating] = np.float32) -> dict[str, FloatArray]:
    """Of the decoding loop, from the graph's own (see `graph/step.py`): `table`, `hidden0`, `hidden1` and so on.

    Returns:
        `table` (V, D, 4), `lower` (D, 4, D), `upper` (D, 4, 2D), `bias` (D, 4), `classifier` (C, K) and
        `classifier_bias` (K); what is multiplied again in every step has the type asked for, the rest is float32.
    """
    return {
        "table": _units_first(weights["table"], np.float32),
        "lower": _units_first(weights["hidden0"], dtype).transpose(1, 2, 0).copy(),
        "upper": _units_first(weights["hidden1"], dtype).transpose(1, 2, 0).copy(),
        "bias": _units_first(weights["bias1"][None], np.float32)[0],
        "classifier": weights["classifier"].astype(dtype),
        "classifier_bias": weights["classifier_bias"].astype(np.float32),
    }


def row_weights(lower: RowLayer, upper: RowLayer, dtype: type[np.floating] = np.float32) -> dict[str, FloatArray]:
    """Of the rows' wave: `lower` (D, 4, D), `upper` (D, 4, 2D) and `bias` (D, 4), as of the decoding loop."""
    both = np.concatenate([upper.into, upper.again])  # (2D, 4, D)
    return {
        "lower": lower.again.astype(dtype).transpose(2, 1, 0).copy(),
        "upper": both.astype(dtype).transpose(2, 1, 0).copy(),
        "bias": upper.bias.T.copy(),
    }


def share_weights(lower: RowLayer) -> tuple[FloatArray, FloatArray]:
    """Of the product that turns the wave's inputs (…, D) into shares (…, 4D), unit by unit: (D, 4D) and (4D)."""
    hidden = len(lower.into)
    return _units_first(lower.into.reshape(hidden, -1), np.float32).reshape(hidden, -1), lower.bias.T.reshape(-1)


def _units_first(weight: npt.NDArray[np.generic], dtype: type[np.floating]) -> FloatArray:
    """(R, 4D) gate by gate to (R, D, 4) unit by unit."""
    rows = len(weight)
    return np.ascontiguousarray(weight.reshape(rows, 4, -1).transpose(0, 2, 1).astype(dtype))
