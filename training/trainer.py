"""The training loop: teacher forcing, an auxiliary CTC head, and a state that survives a kill."""

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustscanner import __version__
from robustscanner.errors import SpecError
from robustscanner.metrics import Accuracy, score_words
from robustscanner.spec import SPEC_KEY
from training.checkpoint import load_tensors, save_checkpoint, save_tensors
from training.config import TrainConfig
from training.data.folder import LabelledCrop
from training.data.stream import Batch
from training.model.robustscanner import RobustScanner
from training.reader import read_crops

logger = logging.getLogger(__name__)


class Learner(nn.Module):
    """The model with what only training needs: its losses and the CTC head."""

    def __init__(self, model: RobustScanner, ctc_weight: float) -> None:
        super().__init__()
        self.model, self.ctc_weight = model, ctc_weight
        # Joint CTC and attention training aligns the features long before attention alone would (arXiv:1609.06773).
        self.ctc_head = nn.Linear(model.backbone.channels, len(model.spec.charset.tokens) + 1)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross entropy over the padded labels, and CTC; both scalars."""
        inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
        features = self.model.features(batch.images)  # (N, C, H, W)
        memory = self.model.remember(features, batch.valid_width, inputs.shape[1])
        logits = self.model.decoder(inputs, memory)[0].float()  # (N, T, classes)
        pad = self.model.spec.charset.pad_id
        # The classifier need not be able to emit pad, so ignored targets must not be checked against its classes.
        read = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad)
        return read, self._ctc(features, batch) if self.ctc_weight else read.new_zeros(())

    def _ctc(self, features: Tensor, batch: Batch) -> Tensor:
        charset = self.model.spec.charset
        columns = self.ctc_head(features.mean(2).transpose(1, 2)).float()  # (N, W, tokens + blank)
        labels = batch.tokens[:, 1:].clone()
        is_character = (labels != charset.end_id) & (labels != charset.pad_id)
        return F.ctc_loss(
            columns.log_softmax(-1).transpose(0, 1),  # (W, N, tokens + blank)
            labels,
            batch.valid_width.long() // self.model.backbone.shrink[1],
            is_character.sum(1),
            blank=columns.shape[2] - 1,
            zero_infinity=True,  # a label longer than its picture has columns teaches nothing
        )


class Trainer:
    """Owns the optimiser and the run's folder: `last.safetensors` to resume, `best.safetensors` to ship."""

    def __init__(self, config: TrainConfig, folder: Path, validation: Sequence[LabelledCrop]) -> None:
        self.config, self.folder, self.validation = config, folder, validation
        torch.manual_seed(config.seed)
        self.learner = Learner(RobustScanner(config.spec), config.ctc_weight).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), lr=config.learning_rate, betas=(0.9, 0.98))
        self.step, self.best = 0, -1.0

    @property
    def model(self) -> RobustScanner:
        """The model in training."""
        return self.learner.model

    def _parameter_groups(self) -> list[dict[str, object]]:
        matrices = [p for p in self.learner.parameters() if p.ndim > 1]
        others = [p for p in self.learner.parameters() if p.ndim <= 1]  # biases and BN: decay only hurts them
        return [{"params": matrices, "weight_decay": self.config.weight_decay}, {"params": others, "weight_decay": 0.0}]

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to 1 % of the peak."""
        config = self.config
        if self.step < config.warmup_steps:
            return config.learning_rate * (self.step + 1) / config.warmup_steps
        progress = min(1.0, (self.step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
        return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def train_step(self, batch: Batch) -> tuple[float, float]:
        """One optimiser step; returns the reading loss and the CTC loss.

        Raises:
            SpecError: the loss is no longer a number.
        """
        self.learner.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            read, ctc = self.learner(batch)
        loss = read + self.config.ctc_weight * ctc
        if not loss.isfinite():
            raise SpecError(f"loss is {loss.item()} at step {self.step}; resume with a lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.step += 1
        return read.item(), ctc.item()

    def run(self, batches: Iterator[Batch], report: "Report") -> None:
        """Trains to the configured number of steps, validating and saving on the way."""
        while self.step < self.config.steps:
            report.add(self, *self.train_step(next(batches)))
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                self.validate()
            if self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps:
                self.save()

    def validate(self) -> Accuracy:
        """Reads the held-out crops; the best model so far is saved."""
        steps = min(self.config.max_length, max((len(crop.label) for crop in self.validation), default=0) + 2)
        readings = read_crops(self.model.eval(), [crop.path for crop in self.validation], steps=steps)
        accuracy = score_words(readings, [crop.label for crop in self.validation])
        logger.info("step %d: %.1f %% of %d held-out words", self.step, 100 * accuracy.rate, accuracy.words)
        if accuracy.rate >= self.best:
            self.best = accuracy.rate
            save_checkpoint(self.folder / "best.safetensors", self.model, [self._history(accuracy)])
        return accuracy

    def _history(self, accuracy: Accuracy) -> dict[str, object]:
        return {
            "step": "train",
            "tool": "training/train.py",
            "version": __version__,
            "steps": self.step,
            "words": self.step * self.config.batch_size,
            "seed": self.config.seed,
            "held_out": {"words": accuracy.words, "correct": accuracy.correct},
        }

    def save(self) -> None:
        """Everything a resumed run needs, in one file."""
        tensors = {f"learner.{name}": tensor for name, tensor in self.learner.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        metadata = {"step": str(self.step), "best": str(self.best), SPEC_KEY: self.model.spec.to_json()}
        save_tensors(self.folder / "last.safetensors", tensors, metadata)

    def resume(self) -> None:
        """Continues from `last.safetensors`.

        Raises:
            SpecError: no such file, or it belongs to another model.
        """
        path = self.folder / "last.safetensors"
        tensors, metadata = load_tensors(path)
        if metadata.get(SPEC_KEY) != self.model.spec.to_json():
            raise SpecError(f"{path}: belongs to another model than the configuration; choose another output folder")
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        try:
            self.learner.load_state_dict(
                {n[len("learner.") :]: t for n, t in tensors.items() if n.startswith("learner.")}
            )
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        except (RuntimeError, ValueError) as error:
            raise SpecError(f"{path}: {' '.join(str(error).split())[:300]}") from None
        self.step, self.best = int(metadata["step"]), float(metadata["best"])


class Report:
    """Running averages to a log file (JSON lines) and to a progress bar."""

    def __init__(self, log: Path, bar: "object", every: int = 50) -> None:
        self._log, self._bar, self._every = log, bar, every
        self._sums, self._since = [0.0, 0.0], time.perf_counter()

    def add(self, trainer: Trainer, read: float, ctc: float) -> None:
        """One step's losses."""
        self._sums = [self._sums[0] + read, self._sums[1] + ctc]
        self._bar.update()
        if trainer.step % self._every == 0:
            now = time.perf_counter()
            read, ctc = (total / self._every for total in self._sums)
            rate = self._every * trainer.config.batch_size / (now - self._since)
            line = {"step": trainer.step, "loss": read, "ctc": ctc, "lr": trainer.learning_rate(), "words_per_s": rate}
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({key: round(value, 6) for key, value in line.items()}) + "\n")
            self._bar.set_postfix(loss=f"{read:.3f}", words_per_s=f"{rate:.0f}")
            self._sums, self._since = [0.0, 0.0], now
