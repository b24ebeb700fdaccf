"""The training loop: teacher forcing, and a state that survives a kill."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robustscanner import __version__
from robustscanner.errors import SpecError
from robustscanner.labels import LabelledCrop
from robustscanner.metrics import Accuracy
from robustscanner.scoring import Scorer
from robustscanner.spec import HISTORY_KEY, SPEC_KEY
from training.checkpoint import load_tensors, save_checkpoint, save_tensors
from training.config import ConfigError, TrainConfig
from training.data.stream import Batch
from training.distill import teach
from training.distributed import Processes, share_batch_norm
from training.ema import Average
from training.evaluation.network_reader import read_crops
from training.inherit import inherit
from training.learner import Learner, borrowed
from training.model.robustscanner import RobustScanner
from training.model.small import SmallNet
from training.precision import half_type
from training.progress import Report
from training.qat import OBSERVED_SHARE
from training.run_folder import RunFolder
from training.schedule import learning_rate

CPU = torch.device("cpu")

logger = logging.getLogger(__name__)


class Trainer:
    """Owns the model in training, the optimiser, and the run's folder.

    Args:
        config: the settings.
        folder: of the run.
        validation: crops that choose the best model.
        init_from: a checkpoint to start from instead of noise.
        teacher: a model whose answers count as well, see `training.distill`.
        device: where to compute.
        processes: that share each step's words; only the first one writes files.

    Raises:
        ConfigError: settings that do not go with the device or with each other.
        SpecError: a checkpoint that does not fit.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        validation: Sequence[LabelledCrop],
        *,
        init_from: Path | None = None,
        teacher: RobustScanner | None = None,
        device: torch.device = CPU,
        processes: Processes = Processes(),
    ) -> None:
        _check_device(config, device)
        self.config, self.folder, self.validation = config, RunFolder(folder), validation
        self.device, self.processes = device, processes
        self.half = half_type(config.precision, device)
        self.teacher = teacher.to(device) if teacher else None
        self.scorer = Scorer.of(config.spec, [crop.label for crop in validation], config.protocol)
        self._check_validation()
        self.step, self.best = 0, -1.0
        self.history: list[dict[str, Any]] = []  # of the checkpoint it started from
        torch.manual_seed(config.seed)
        self.learner = self._make_learner(init_from).to(device)
        self.learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.model, config.ema_decay) if config.ema_decay else None
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), lr=config.learning_rate, betas=(0.9, 0.98))
        # Half precision rounds small gradients to zero, so they are computed of a larger loss.
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._forward = self._shared(self.learner)

    @property
    def model(self) -> RobustScanner:
        """The model in training."""
        model: RobustScanner = self.learner.model
        return model

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the losses: `loss` of reading, `ctc`, and `distill` with a teacher.

        Raises:
            SpecError: the loss is no longer a number.
        """
        self.learner.train()
        if self.learner.quantisation:
            self.learner.quantisation.observe(self.step < OBSERVED_SHARE * self.config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step) * group["rate"]
        losses = self._losses(Batch(*(tensor.to(self.device, non_blocking=True) for tensor in batch)))
        loss = losses["loss"] + self.config.ctc_weight * losses["ctc"] + self.config.guide_weight * losses["guide"]
        for name in ("distill", "columns", "features") if self.teacher else ():
            loss = loss + getattr(self.config, f"{name}_weight") * losses[name]
        self._descend(loss)
        self.step += 1
        if self.average:
            self.average.update(self.step)
        return self._means(losses)

    def run(self, batches: Iterator[Batch], report: Report) -> None:
        """Trains to the configured number of steps, validating and saving on the way."""
        while self.step < self.config.steps:
            losses = self.train_step(next(batches))
            report.add(self.step, losses, lr=self.optimizer.param_groups[0]["lr"])
            if self._is_due(self.config.validate_every):
                report.note(self.step, {"held_out": self.validate().rate})
            if self._is_due(self.config.checkpoint_every):
                report.write(self.step)  # so that a resumed run draws its averages over the same steps
                self.save()

    def validate(self) -> Accuracy:
        """Reads the held-out crops, with the averaged weights; the best model so far is saved."""
        crops, started = self.processes.mine(self.validation), time.perf_counter()
        steps = min(self.config.max_length, max((len(crop.label) for crop in self.validation), default=0) + 2)
        self.learner.eval()
        with self.average.applied() if self.average else nullcontext():
            readings = self.processes.gather(read_crops(self.model, [crop.path for crop in crops], steps=steps))
            accuracy = self.scorer.score(readings)
            if accuracy.rate >= self.best:
                self.best = accuracy.rate
                self._save_best(accuracy)
        seconds = time.perf_counter() - started
        message = "step %d: %.1f %% of %d held-out words, read in %.0f s"
        logger.info(message, self.step, 100 * accuracy.rate, accuracy.words, seconds)
        return accuracy

    def save(self) -> None:
        """Everything a resumed run needs, in one file; older ones are removed."""
        if not self.processes.is_first:
            return
        tensors = {f"learner.{name}": tensor for name, tensor in self.learner.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        if self.average:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.tensors.items()}
        metadata = {
            "step": str(self.step),
            "best": str(self.best),
            "scaler": json.dumps(self.scaler.state_dict()),
            "config": json.dumps(self.config.to_dict()),
            SPEC_KEY: self.model.spec.to_json(),
            HISTORY_KEY: json.dumps(self.history),
        }
        save_tensors(self.folder.state(self.step), tensors, metadata)
        self.folder.rotate(self.config.keep_checkpoints)

    def resume(self) -> None:
        """Continues from the newest state in the folder.

        Raises:
            SpecError: there is none, or it belongs to another model.
        """
        states = self.folder.states()
        if not states:
            raise SpecError(f"{self.folder.path}: holds no state of a run to resume; start one without --resume")
        tensors, metadata = load_tensors(states[-1])
        if metadata.get(SPEC_KEY) != self.model.spec.to_json():
            raise SpecError(
                f"{states[-1]}: belongs to another model than the settings describe; choose another output folder"
            )
        try:
            self.learner.load_state_dict(_part(tensors, "learner."))
            self._load_optimizer(_part(tensors, "optimizer."))
            averaged = _part(tensors, "average.") or self.model.state_dict()  # a run that began before there was one
            if self.average:
                self.average.load(averaged)
        except (RuntimeError, ValueError) as error:
            raise SpecError(f"{states[-1]}: {' '.join(str(error).split())[:300]}") from None
        self.step, self.best = int(metadata["step"]), float(metadata["best"])
        self.history = json.loads(metadata.get(HISTORY_KEY, "[]"))
        if scaler := json.loads(metadata.get("scaler", "{}")):
            self.scaler.load_state_dict(scaler)
        self._tell_changes(json.loads(metadata.get("config", "{}")))

    def _check_validation(self) -> None:
        """A set that says nothing shall not seem to choose the best model."""
        if not self.validation:
            logger.warning(
                "no held-out words: nothing is validated, and best.safetensors is only the newest; "
                "name a set with --validation, or raise held_out_share"
            )
        elif not self.scorer.score([""] * len(self.validation)).words:
            problem = self.scorer.problem(0)
            raise ConfigError(f"validation: {problem}; set protocol=auto, or name another set with --validation")
        elif unreadable := sum(map(bool, self.scorer.missing)):
            character = next(filter(None, self.scorer.missing))[0]
            logger.warning(
                "validation: %d of %d labels hold characters that this model cannot read, such as %r (U+%04X)",
                unreadable,
                len(self.validation),
                character,
                ord(character),
            )

    def _make_learner(self, init_from: Path | None) -> Learner:
        config = self.config
        model = RobustScanner(config.spec)
        if init_from:
            inherited = inherit(model, init_from)
            self.history = inherited.history
            logger.info("%s", inherited)
        learner = Learner(
            model,
            config.ctc_weight,
            temperature=config.distill_temperature,
            quantised=config.qat,
            frozen=config.encoder_rate == 0,
            guided=config.guide_weight > 0,
            teacher_channels=self._teacher_channels(),
        )
        if self.processes.count > 1 and config.sync_batch_norm and not config.qat:  # which has none left
            share_batch_norm(learner, self.device.type)
        if config.compile:
            model.backbone.compile(dynamic=True)  # widths differ from batch to batch
        return learner

    def _teacher_channels(self) -> int:
        """Channels of the teacher's features, where they count."""
        if self.teacher is None or not self.config.features_weight:
            return 0
        backbone = self.teacher.backbone
        return backbone.raw_channels if isinstance(backbone, SmallNet) else backbone.channels

    def _shared(self, learner: Learner) -> nn.Module:
        if self.processes.count == 1:
            return learner
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(learner, device_ids=devices)

    def _parameter_groups(self) -> list[dict[str, object]]:
        slow = {id(parameter) for parameter in borrowed(self.model)} if self.config.encoder_rate != 1 else set()
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in self.learner.parameters():
            # Biases and norms are not decayed: it only hurts them.
            groups.setdefault((id(parameter) in slow, parameter.ndim > 1), []).append(parameter)
        return [
            {
                "params": parameters,
                "weight_decay": self.config.weight_decay if is_matrix else 0.0,
                "rate": self.config.encoder_rate if is_slow else 1.0,
            }
            for (is_slow, is_matrix), parameters in sorted(
                groups.items(), key=lambda item: (item[0][0], not item[0][1])
            )
        ]

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            answers = self.config.distill_weight > 0
            lesson = teach(self.teacher, batch, answers=answers) if self.teacher else None
            losses = self._forward(batch, lesson)
        # Means over this process's characters, which are more or fewer than another one's, to parts of the whole mean.
        characters = (batch.tokens[:, 1:] != self.model.spec.charset.pad_id).sum().float()
        part = characters * self.processes.count / self.processes.total(characters.clone())
        named = {"loss": losses.read * part, "ctc": losses.ctc, "guide": losses.guide}
        if not self.teacher:
            return named
        return named | {"distill": losses.distill * part, "columns": losses.columns, "features": losses.features}

    def _descend(self, loss: Tensor) -> None:
        if not loss.isfinite():
            raise SpecError(f"loss is {loss.item()} at step {self.step}; resume with a lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.learner.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _means(self, losses: dict[str, Tensor]) -> dict[str, float]:
        values = self.processes.total(torch.stack([loss.detach() for loss in losses.values()])) / self.processes.count
        return dict(zip(losses, values.tolist(), strict=True))

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _save_best(self, accuracy: Accuracy) -> None:
        if self.processes.is_first:
            ranges = self.learner.quantisation.ranges() if self.learner.quantisation else None
            history = [*self.history, self._history(accuracy)]
            save_checkpoint(self.folder.best, self.model, history, ranges=ranges)

    def _history(self, accuracy: Accuracy) -> dict[str, object]:
        return {
            "step": "train",
            "tool": "training/train.py",
            "version": __version__,
            "steps": self.step,
            "words": self.step * self.config.batch_size,
            "seed": self.config.seed,
            "held_out": {"words": accuracy.words, "correct": accuracy.correct},
            "protocol": self.scorer.protocol.name,
            **({"teacher": self.teacher.spec.name} if self.teacher else {}),
            **({"qat": True} if self.config.qat else {}),
        }

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})

    def _tell_changes(self, earlier: dict[str, Any]) -> None:
        now = self.config.to_dict()
        changes = [f"{key} {earlier[key]!r} -> {now[key]!r}" for key in earlier if now.get(key) != earlier[key]]
        if changes:
            logger.info("resumed with other settings: %s", ", ".join(changes))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_device(config: TrainConfig, device: torch.device) -> None:
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError("precision: fp16 needs a GPU; set precision=bf16")
