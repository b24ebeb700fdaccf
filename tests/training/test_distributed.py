"""Two processes with half a batch each compute what one does with the whole."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing

from tests.training.small import batches, make_crops, small_config
from training.checkpoint import load_tensors, save_tensors
from training.data.stream import Batch
from training.distributed import DistributedError, Processes, joined
from training.trainer import Trainer

STEPS = 6


def train(folder: Path, processes: Processes) -> None:
    """Leaves losses and weights of this process in the folder."""
    torch.set_num_threads(1)
    trainer = Trainer(small_config(steps=STEPS), folder / "run", make_crops(folder), processes=processes)
    losses = []
    for whole in batches(trainer.config):
        losses.append(
            list(trainer.train_step(Batch(*(part[processes.rank :: processes.count] for part in whole))).values())
        )
    accuracy = trainer.validate() if processes.rank == 0 or processes.count > 1 else None
    trainer.save()
    tensors = {**trainer.learner.state_dict(), "losses": torch.tensor(losses)}
    assert accuracy is not None
    save_tensors(folder / f"{processes.rank}.safetensors", tensors, {"words": str(accuracy.words)})


def work(rank: int, folder: Path, port: int) -> None:
    """One of two processes, as torchrun starts them."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in here.items()})
    with joined("cpu") as processes:
        assert processes.gather(processes.mine("abcde")) == list("abcde")
        train(folder, processes)


def apart(a: dict[str, Tensor], b: dict[str, Tensor], keys: list[str]) -> float:
    return float(torch.cat([(a[key].float() - b[key].float()).flatten() for key in keys]).norm())


def test_two_processes_equal_one(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(work, (together, port), nprocs=2)
    train(alone, Processes())
    one, metadata = load_tensors(alone / "0.safetensors")
    first, _ = load_tensors(together / "0.safetensors")
    second, counted = load_tensors(together / "1.safetensors")
    assert torch.allclose(one["losses"], first["losses"], atol=1e-4)
    assert len(set(one["losses"][:, 0].tolist())) == STEPS
    keys = [key for key in one if key != "losses"]
    assert apart(first, second, keys) == 0
    start = Trainer(small_config(steps=STEPS), tmp_path, []).learner.state_dict()
    # All together: Adam makes steps of full size out of the rounding noise of biases that change nothing.
    assert apart(one, first, keys) < 0.01 * apart(one, start, keys)
    statistics = [key for key in keys if "running" in key]
    assert apart(one, first, statistics) < 1e-4 * apart(one, start, statistics)
    assert metadata["words"] == counted["words"] == "3"
    assert [path.name for path in (together / "run").iterdir()] == [path.name for path in (alone / "run").iterdir()]


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert Processes(1, 3).share(6) == 2
    with pytest.raises(DistributedError, match="batch_size 4 cannot be divided by 3"):
        Processes(1, 3).share(4)


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as processes:
        assert processes == Processes()
        assert processes.is_first
        assert processes.gather([3, 1]) == [3, 1]
