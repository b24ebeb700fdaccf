"""An endless, seeded mix of rendered words and real crops, ready for the network."""

import logging
from collections import Counter
from collections.abc import Generator, Sequence
from itertools import count
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustscanner.preprocess import draw_canvas, fitted_width
from robustscanner.spec import ModelSpec
from training.data.record import Skipped, describe_skipped
from training.data.source import Drawer, Word, draw_usable

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What one training step needs."""

    images: Tensor  # (N, H, W, 3) uint8 canvases; W is the widest word's
    valid_width: Tensor  # (N) int32, pixels
    tokens: Tensor  # (N, T + 1) int64: start, characters, end, pad…; inputs are [:, :-1], targets [:, 1:]

    @classmethod
    def of(cls, images: list[np.ndarray], labels: list[list[int]], spec: ModelSpec) -> "Batch":
        """Draws the canvases, cut to the right of the widest word, and pads the labels to the longest."""
        canvases = np.empty((len(images), spec.input.height_px, spec.input.width_px, 3), np.uint8)
        widths = [draw_canvas(image, canvas, spec.input) for image, canvas in zip(images, canvases, strict=True)]
        charset = spec.charset
        tokens = torch.full((len(labels), max(map(len, labels)) + 2), charset.pad_id)
        for row, label in zip(tokens, labels, strict=True):
            row[: len(label) + 2] = torch.tensor([charset.start_id, *label, charset.end_id])
        wide = spec.input.canvas_width(max(widths)) if spec.input.canvas_step_px else max(widths)
        trimmed = np.ascontiguousarray(canvases[:, :, :wide])
        return cls(torch.from_numpy(trimmed), torch.tensor(widths, dtype=torch.int32), tokens)


class Batches(NamedTuple):
    """Several batches, each of words of about the same width: narrow canvases cost less."""

    batches: list[Batch]
    skipped: dict[tuple[str, str], int]  # what was left out on the way; no Counter: pinning memory would double it


class MixedStream(Dataset[Batches]):
    """Buckets without end from weighted sources; what one holds depends on the seed and its number alone."""

    def __init__(
        self,
        spec: ModelSpec,
        drawers: Sequence[tuple[Drawer, float]],
        *,
        batch_size: int,
        bucket_batches: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Prepares the mix.

        Args:
            spec: the model to draw canvases and encode labels for.
            drawers: the sources, each with its weight; see `open_sources`.
            batch_size: words of a batch.
            bucket_batches: batches of a bucket.
            seed: of all choices.
            shard: number of this process and count of the processes that train together; each sees other buckets.
        """
        self.spec, self.batch_size, self.bucket_batches = spec, batch_size, bucket_batches
        self._drawers, weights = [drawer for drawer, _ in drawers], [weight for _, weight in drawers]
        self._shares = np.array(weights) / sum(weights)
        self._seed, self._shard = seed, shard

    def batches(
        self, *, first_step: int = 0, workers: int = 0, pin_memory: bool = False
    ) -> Generator[Batch, None, None]:
        """The batches from a step on, 0 being the first; the same ones whatever the number of worker processes.

        Records that cannot be used are left out; the log says so at the first of a kind, and how many when this closes.
        """
        first, done = divmod(first_step, self.bucket_batches)
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=count(first),
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # for the workers' seeds, which are not used: the global one stays as it is
        )
        skipped: Skipped = Counter()
        try:
            for bucket in loader:
                for name, reason in sorted(bucket.skipped.keys() - skipped.keys()):
                    logger.info("%s: records are left out: %s", name, reason)
                skipped.update(bucket.skipped)
                yield from bucket.batches[done:]
                done = 0
        finally:
            for line in describe_skipped(skipped):
                logger.warning("%s", line)

    def __getitem__(self, index: int) -> Batches:
        """One bucket, drawn anew each time.

        Raises:
            DataError: a source holds next to nothing that can be used.
        """
        cv2.setNumThreads(0)
        seeds = [self._seed, index * self._shard[1] + self._shard[0]]
        rng = np.random.default_rng(seeds)
        # A generator for each source: what one draws, or leaves out, does not move the others. (0 would repeat rng's.)
        rngs = [np.random.default_rng([*seeds, number]) for number in range(1, len(self._drawers) + 1)]
        skipped: Skipped = Counter()
        chosen = rng.choice(len(rngs), self.batch_size * self.bucket_batches, p=self._shares)
        words = [draw_usable(self._drawers[number], rngs[number], skipped) for number in chosen]
        words.sort(key=self._width)
        firsts = rng.permutation(self.bucket_batches) * self.batch_size
        return Batches([self._batch(words[first : first + self.batch_size]) for first in firsts], dict(skipped))

    def _batch(self, words: list[Word]) -> Batch:
        return Batch.of([image for image, _ in words], [label for _, label in words], self.spec)

    def _width(self, word: Word) -> int:
        height, width = word[0].shape[:2]
        return fitted_width(height, width, self.spec.input)
