"""Several processes, one model: who is who, sums over all of them, and batch normalisation as if they were one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from robustscanner.errors import RobustScannerError

Item = TypeVar("Item")


class DistributedError(RobustScannerError):
    """Processes that cannot work together."""


@dataclass(frozen=True)
class Processes:
    """This process among those that `torchrun` started; alone without it."""

    rank: int = 0  # among all machines; 0 logs and saves
    count: int = 1
    local_rank: int = 0  # on this machine: which GPU

    @property
    def is_first(self) -> bool:
        """Whether this one logs and saves."""
        return self.rank == 0

    def share(self, words: int) -> int:
        """How many of a step's words are this process's.

        Raises:
            DistributedError: they cannot be shared out evenly.
        """
        if words % self.count:
            raise DistributedError(f"batch_size {words} cannot be divided by {self.count} processes; change one")
        return words // self.count

    def total(self, value: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def mine(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of a list."""
        return items[self.rank :: self.count]

    def gather(self, mine: Sequence[Item]) -> list[Item]:
        """The whole list again, in order, from everyone's part."""
        if self.count == 1:
            return list(mine)
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, list(mine))
        return [parts[index % self.count][index // self.count] for index in range(sum(map(len, parts)))]


@contextmanager
def joined(device_kind: str) -> Iterator[Processes]:
    """Meets the other processes: over NCCL with GPUs ("cuda"), over gloo on CPUs."""
    environment = os.environ
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    distributed.init_process_group("nccl" if device_kind == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), int(environment["LOCAL_RANK"]))
    finally:
        distributed.destroy_process_group()


def share_batch_norm(module: nn.Module, device_kind: str) -> None:
    """Makes batch normalisation take its statistics over all processes; names of weights stay."""
    if device_kind == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = SharedBatchNorm2d


class SharedBatchNorm2d(nn.BatchNorm2d):
    """What PyTorch's SyncBatchNorm does on GPUs only."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        if not self.training:
            return super().forward(x)
        y = x.float()
        count = _sum_over_all(y.new_tensor([y.numel() // y.shape[1]]))
        mean = _sum_over_all(y.sum((0, 2, 3))) / count  # (C)
        centred = y - mean[:, None, None]
        variance = _sum_over_all(centred.square().sum((0, 2, 3))) / count  # (C)
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        gain = self.weight * (variance + self.eps).rsqrt()  # (C)
        return (centred * gain[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum or 0.1)
        self.running_var.lerp_(variance, self.momentum or 0.1)
        self.num_batches_tracked += 1


class _AllSum(torch.autograd.Function):
    """The sum over all processes; each one's loss depends on it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def _sum_over_all(value: Tensor) -> Tensor:
    total: Tensor = _AllSum.apply(value)  # type: ignore[no-untyped-call]
    return total
