"""Where letters stand, on columns that say so plainly."""

import torch
from torch import Tensor

from training.alignment import Letters, align_letters, guidance

BLANK = 5


def columns_saying(*classes: int) -> Tensor:
    logs = torch.full((1, len(classes), BLANK + 1), -8.0)
    for column, said in enumerate(classes):
        logs[0, column, said] = 0.0
    return logs


def test_letters_stand_where_their_columns_are() -> None:
    logs = columns_saying(BLANK, 0, 0, BLANK, 1, 2, 2, BLANK, 2)
    letters = align_letters(logs, torch.tensor([[0, 1, 2, 2]]), torch.tensor([4]))
    assert letters.centres.tolist() == [[1.5, 4.0, 5.5, 8.0]]
    assert letters.found.all()


def test_a_label_that_the_columns_cannot_hold_is_not_found() -> None:
    letters = align_letters(columns_saying(0, 0), torch.tensor([[0, 0, 0]]), torch.tensor([3]))
    assert not letters.found.any()


def test_attention_on_the_letter_costs_less_than_attention_beside_it() -> None:
    letters = Letters(torch.tensor([[1.0]]), torch.tensor([[True]]))
    losses = []
    for place in (2, 7):  # CTC's column 1 is columns 2 and 3 of the map
        weights = torch.zeros(1, 1, 2 * 10)
        weights[0, 0, place] = 1.0
        losses.append(float(guidance(weights, letters, height=2, scale=2)))
    assert losses[0] < 0.2 < losses[1]
