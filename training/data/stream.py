"""An endless, seeded mix of rendered words and real crops, ready for the network."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from robustscanner.charset import Charset
from robustscanner.preprocess import draw_canvas, fitted_width, load_image
from robustscanner.spec import ModelSpec
from training.data.augment import augment
from training.data.folder import LabelledCrop
from training.data.synth import WordSynthesizer

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What one training step needs."""

    images: Tensor  # (N, H, W, 3) uint8 canvases; W is the widest word's
    valid_width: Tensor  # (N) int32, pixels
    tokens: Tensor  # (N, T + 1) int64: start, characters, end, pad…; inputs are [:, :-1], targets [:, 1:]

    @classmethod
    def of(cls, images: list[np.ndarray], labels: list[list[int]], spec: ModelSpec) -> "Batch":
        """Draws the canvases, cut behind the widest word, and pads the labels to the longest."""
        canvases = np.empty((len(images), spec.input.height_px, spec.input.width_px, 3), np.uint8)
        widths = [draw_canvas(image, canvas, spec.input) for image, canvas in zip(images, canvases, strict=True)]
        charset = spec.charset
        tokens = torch.full((len(labels), max(map(len, labels)) + 2), charset.pad_id)
        for row, label in zip(tokens, labels, strict=True):
            row[: len(label) + 2] = torch.tensor([charset.start_id, *label, charset.end_id])
        trimmed = np.ascontiguousarray(canvases[:, :, : max(widths)])
        return cls(torch.from_numpy(trimmed), torch.tensor(widths, dtype=torch.int32), tokens)


def encode_label(text: str, charset: Charset, max_length: int) -> list[int] | None:
    """Ids of a label without its spaces, or None if a character is unknown or it is empty or too long to decode."""
    text = text.replace(" ", "")
    known = set(charset.characters)
    if not 0 < len(text) < max_length or not known.issuperset(text):
        return None
    return charset.encode(text)


class WordStream(IterableDataset[Batch]):
    """Batches without end; each worker draws its own, from a seed of its own."""

    def __init__(
        self,
        spec: ModelSpec,
        synthesizer: WordSynthesizer,
        crops: Sequence[LabelledCrop],
        *,
        real_share: float,
        batch_size: int,
        bucket_batches: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.spec, self.synthesizer, self.batch_size, self.seed = spec, synthesizer, batch_size, seed
        self.bucket_batches = bucket_batches
        self.charset = Charset(spec.charset)
        encoded = [(crop.path, encode_label(crop.label, self.charset, spec.network.max_length)) for crop in crops]
        self.crops = [(path, label) for path, label in encoded if label is not None]
        self.real_share = real_share if self.crops else 0.0
        if len(self.crops) < len(crops):
            logger.info(
                "%d of %d crops left out: label not readable with this charset",
                len(crops) - len(self.crops),
                len(crops),
            )

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(0)
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            yield from self._bucket(rng)

    def _bucket(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Several batches, each of words of about the same width: narrow canvases cost less."""
        words = [self._draw(rng) for _ in range(self.batch_size * self.bucket_batches)]
        words.sort(key=lambda word: fitted_width(*word[0].shape[:2], self.spec.input))
        for index in rng.permutation(self.bucket_batches):
            images, labels = zip(*words[index * self.batch_size :][: self.batch_size], strict=True)
            yield Batch.of(list(images), list(labels), self.spec)

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        if rng.random() < self.real_share:
            path, label = self.crops[rng.integers(len(self.crops))]
            return augment(load_image(path), rng), label
        image, text = self.synthesizer.sample(rng)
        return image, self.charset.encode(text)
