"""A running average of the weights, which reads better than the weights of any single step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustscanner.errors import SpecError


class Average:
    """Exponential moving average of a module's parameters and BN statistics.

    Args:
        module: averaged; its tensors are looked up anew at each step.
        decay: share of the average that one step keeps, once warm.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after step `step`; early steps weigh more, or the average would begin with noise."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, tensor in self._module.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module holds the average inside, and its own weights again afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self._module.state_dict().items()}
        self._module.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self._module.load_state_dict(own)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continues from saved tensors.

        Raises:
            SpecError: other names or shapes.
        """
        saved = {name: tensor.shape for name, tensor in tensors.items()}
        if saved != {name: tensor.shape for name, tensor in self.tensors.items()}:
            raise SpecError("the average of the weights does not fit the model; start again with --force")
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
