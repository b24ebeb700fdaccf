"""Pictures to text."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from robustscanner.charset import Charset
from robustscanner.constraint import Automaton, Constraint
from robustscanner.engine import default_engine, open_engine
from robustscanner.errors import ConstraintError, EngineError, ImageError
from robustscanner.letters import Letter, describe, forced
from robustscanner.picture import Picture, check_several, is_on_host, pixels_of
from robustscanner.preprocess import draw_canvas, make_batch, same_width
from robustscanner.regions import cut
from robustscanner.session import Allowed, Images, Probabilities, Scores, Session, SessionOptions, Tokens, Widths
from robustscanner.spec import ModelSpec
from robustscanner.words import Lexicon, Read, WordList

Expected = Constraint | WordList  # what may be read

Run = Callable[[slice, Allowed | None], tuple[Tokens, Scores]]  # of some rows of what there is to read
Tell = Callable[[slice, Allowed], "tuple[Tokens, Scores, Probabilities] | None"]  # see `OnnxSession.tell`

DEFAULT_BATCH = 16  # pictures: a guess, not measured yet


@dataclass(frozen=True)
class Reading:
    """What a picture says."""

    text: str
    # 0…1: how likely it is right, as far as the model was fitted to know: the product of the token probabilities up to
    # and including the end token, to the power of 1 / `score_temperature` of its spec.
    score: float


@dataclass(frozen=True)
class WordReading(Reading):
    """The word of a list that a picture says most likely."""

    free: Reading  # without the list
    others: float  # no other word of the list has a higher score than this


class Recognizer:
    """Reads cropped words with one engine; close it, or use it in a `with` statement.

    A copy, or one that was pickled for another process, opens the same engine again, by its path. Any number of threads
    may share one that runs on the CPU; a forked process opens its own behind the scenes when it first reads.

    Args:
        engine: a bundle `NAME.engine/` or a `NAME.onnx`; the model that ships with the library when left out.
        batch_size: the most pictures of one run.
        constraint: what texts may be, unless a call says otherwise: a `Constraint`, or a `WordList`, under which
            readings are `WordReading`s.
        options: how to run the engine; `SessionOptions()` when left out.

    Raises:
        EngineError: the engine cannot be used here.
        ConstraintError: it, or its model, cannot heed the constraint.
    """

    def __init__(
        self,
        engine: str | PathLike[str] | None = None,
        *,
        batch_size: int = DEFAULT_BATCH,
        constraint: Expected | None = None,
        options: SessionOptions | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
        # What was left out is chosen anew for a copy; a path is found wherever that is made.
        self._engine = None if engine is None else Path(engine).resolve()
        self._options = options
        session = open_engine(
            default_engine() if engine is None else Path(engine), SessionOptions() if options is None else options
        )
        self._take(session, batch_size, constraint)

    @classmethod
    def over(cls, session: Session, *, batch_size: int = DEFAULT_BATCH) -> "Recognizer":
        """One that reads with a session which is open already, and closes it; it cannot be copied or pickled."""
        recognizer = cls.__new__(cls)
        recognizer._take(session, batch_size, None)
        return recognizer

    def _take(self, session: Session, batch_size: int, constraint: Expected | None) -> None:
        self._session = session
        self._charset = Charset(session.spec.charset)
        self._constraint = constraint
        self._automaton(constraint)
        self._batch_size = min(batch_size, session.max_batch or batch_size)

    def __enter__(self) -> "Recognizer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        again = partial(Recognizer, self._engine, batch_size=self._batch_size)
        return partial(again, constraint=self._constraint, options=self._options), ()

    def close(self) -> None:
        """Frees the engine."""
        self._session.close()

    @property
    def spec(self) -> ModelSpec:
        """The model that reads."""
        return self._session.spec

    def read(self, image: Picture, *, constraint: Expected | None = None) -> Reading:
        """Reads one picture.

        Args:
            image: a path, the bytes of a file, a PIL image, or uint8 [H, W, 3] RGB.
            constraint: what the text may be; the recogniser's own when left out.

        Raises:
            ImageError: the picture cannot be read.
            ConstraintError: the model or engine cannot heed the constraint.
            EngineError: the engine failed.
        """
        return self.read_batch([image], constraint=constraint)[0]

    def read_batch(self, images: Sequence[Picture], *, constraint: Expected | None = None) -> list[Reading]:
        """Reads any number of pictures, in order; raises as `read` does, at the first bad picture."""
        readings = []
        for _, result in self.read_each(images, constraint=constraint):
            if isinstance(result, ImageError):
                raise result
            readings.append(result)
        return readings

    def letters(self, image: Picture, text: str) -> tuple[Letter, ...]:
        """Where each letter of a text stands in a picture, how likely it is, and what else it might be.

        It takes another run of the engine, in which the text is fixed: a reading's own, or any other.

        Args:
            image: as for `read`.
            text: what the picture says.

        Raises:
            ImageError: the picture cannot be read.
            ConstraintError: the model cannot write the text, or the engine is not one for letters.
            EngineError: the engine failed.
        """
        trace = getattr(self._session, "trace", None)
        if trace is None:
            raise ConstraintError("this engine is run by another server, which does not tell letters")
        if not text:
            return ()
        ids, mask = forced(text, self.spec)
        pixels = pixels_of(image)
        canvases, widths = make_batch([pixels], self.spec.input)
        return describe(ids, trace(canvases, widths, mask), self.spec, pixels.shape[1], int(widths[0]))

    def read_regions(
        self,
        picture: Any,
        regions: Sequence[Any],
        *,
        constraint: Expected | None = None,
        stream: int | None = None,
    ) -> list[Reading]:
        """Reads words of a larger picture, which a detector has found.

        Args:
            picture: as for `read`; or, for a TensorRT engine, uint8 [H, W, 3], RGB, on the GPU, with
                `__cuda_array_interface__` or DLPack, as PyTorch and CuPy have it. That is not copied to the host, and
                may be changed again when this returns.
            regions: one word each: (x, y, width, height) in whole pixels, or four points (x, y), clockwise from where
                the word begins at its top; so they may be turned, or seen at an angle.
            constraint: what each text may be; the recogniser's own when left out.
            stream: handle of the CUDA stream that fills a picture on the GPU, if it does not say so itself.

        Raises:
            ImageError: a picture or regions that cannot be read.
            ConstraintError: the model or engine cannot heed the constraint.
            EngineError: the engine failed, or is not one for TensorRT and the picture lies on the GPU.
        """
        if is_on_host(picture):
            return self.read_batch(cut(pixels_of(picture), regions, self.spec.input), constraint=constraint)
        run = getattr(self._session, "run_regions", None)
        if run is None:
            raise EngineError("only a TensorRT engine reads from a GPU; copy the crops to the host, and use read_batch")
        automaton = self._automaton(constraint or self._constraint)
        return list(
            self._say(lambda rows, allowed: run(picture, regions[rows], allowed=allowed, stream=stream), automaton)
        )

    def read_each(
        self, images: Iterable[Picture], *, constraint: Expected | None = None
    ) -> Iterator[tuple[Picture, Reading | ImageError]]:
        """Reads pictures as they come, a batch at a time; a bad one yields its error and does not stop the others.

        Memory stays bounded: one decoded picture and one batch of canvases.

        Yields:
            Each picture as it was given, in order, and its reading or what is wrong with it.

        Raises:
            EngineError: the engine failed.
        """
        check_several(images)
        automaton = self._automaton(constraint or self._constraint)
        images = iter(images)
        while chunk := list(islice(images, self._batch_size)):
            yield from zip(chunk, self._read_chunk(chunk, automaton), strict=True)

    def _automaton(self, constraint: Expected | None) -> Automaton | Lexicon | None:
        if constraint is None:
            return None
        if not self._session.can_constrain:
            raise ConstraintError(
                "this engine is older than constraints and takes none: build it again with convert/build_engine.py, "
                "or export the model again with convert/export_onnx.py"
            )
        return constraint.automaton(self.spec)

    def _read_chunk(self, images: list[Picture], automaton: Automaton | Lexicon | None) -> list[Reading | ImageError]:
        spec = self.spec.input
        canvases = np.empty((len(images), spec.height_px, spec.width_px, 3), np.uint8)
        widths: list[int] = []
        errors: dict[int, ImageError] = {}
        for index, image in enumerate(images):
            try:
                widths.append(draw_canvas(pixels_of(image), canvases[len(widths)], spec))
            except ImageError as error:
                errors[index] = error
        readings = iter(self._read_canvases(canvases[: len(widths)], np.array(widths, np.int32), automaton))
        return [errors[index] if index in errors else next(readings) for index in range(len(images))]

    def _read_canvases(self, canvases: Images, widths: Widths, automaton: Automaton | Lexicon | None) -> list[Reading]:
        if not len(canvases):
            return []
        readings: dict[int, Reading] = {}
        for rows, wide in same_width(widths.tolist(), self.spec.input):
            part = canvases if len(rows) == len(widths) else canvases[rows]
            images, valid = np.ascontiguousarray(part[:, :, :wide]), widths[rows]
            said = self._say(self._run(images, valid), automaton, self._tell(images, valid))
            readings |= zip(rows.tolist(), said, strict=True)
        return [readings[row] for row in range(len(widths))]

    def _reading(self, tokens: Tokens, scores: Scores) -> Reading:
        text, product = self._charset.decode(tokens, scores)
        return Reading(text, self._score(product))

    def _score(self, product: float) -> float:
        return float(product ** (1 / self.spec.network.score_temperature))

    def _run(self, canvases: Images, widths: Widths) -> Run:
        return lambda rows, allowed: self._session.run(canvases[rows], widths[rows], allowed)

    def _tell(self, canvases: Images, widths: Widths) -> Tell:
        tell = getattr(self._session, "tell", lambda *_: None)
        return lambda rows, allowed: tell(canvases[rows], widths[rows], allowed)

    def _say(self, run: Run, automaton: Automaton | Lexicon | None, tell: Tell = lambda *_: None) -> Iterable[Reading]:
        if isinstance(automaton, Lexicon):
            return self._best_words(run, automaton, tell)
        return map(self._reading, *self._heed(run, automaton))

    def _best_words(self, run: Run, lexicon: Lexicon, tell: Tell) -> Iterator[Reading]:
        """All at once freely; then a picture at a time, for as long as another word of the list may be better."""
        for row, (tokens, scores) in enumerate(zip(*run(slice(None), None), strict=True)):
            found = lexicon.search(tokens, scores, partial(_read_again, run, tell, slice(row, row + 1)))
            text = self._charset.text(found.ids)
            free, others = self._reading(tokens, scores), self._score(found.others)
            yield WordReading(text, self._score(found.probability), free, others)

    def _heed(self, run: Run, automaton: Automaton | None) -> tuple[Tokens, Scores]:
        """Tokens and scores, (N, T) each.

        What may follow depends on what stands before, but a run only knows places. So a word that comes out with a
        forbidden turn is read again with all before the turn fixed: then the place is exact, and it turns rightly.
        """
        if automaton is None:
            return run(slice(None), None)
        tokens, scores = run(slice(None), automaton.mask())
        for row in range(len(tokens)):
            while not automaton.accepts(ids := self._charset.ids(tokens[row])):
                fixed = automaton.mask(ids[: automaton.known(ids)])
                here = slice(row, row + 1)
                tokens[here], scores[here] = run(here, fixed)
        return tokens, scores


def _read_again(run: Run, tell: Tell, row: slice, mask: Allowed) -> Read:
    """One picture, with all probabilities if the engine tells them."""
    if (told := tell(row, mask)) is not None:
        return Read(told[0][0], told[1][0], told[2])
    tokens, scores = run(row, mask)
    return Read(tokens[0], scores[0])
